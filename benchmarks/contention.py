"""Generating beside busy processes: what is left of the speed, ours and llama.cpp's.

Each engine lives in a process of its own and generates for some seconds in turn, while so many
shells count as fast as they can. The first row of each round is the calm machine. "one" is our
engine with one thread: what a team must not fall much below when it has to share.

    python benchmarks/contention.py [--model FILE.gguf] [--threads 2] [--busy 0,1,2] [--rounds 3]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import record

COLUMNS = {
    "busy": "d",
    "one": ".1f",
    "edgeinfer": ".1f",
    "llamacpp": ".1f",
    "share_of_one": ".2f",
    "ratio": ".2f",
}
CONTEXT = 512
NEW_TOKENS = 128  # then the sequence begins again

_step: Any  # of the process's engine
_clear: Any


def load_ours(path: str, threads: int) -> None:
    """Makes this process one of ours."""
    import edgeinfer
    from edgeinfer.backends.base import ModelFiles, Slice
    from edgeinfer.backends.native import NativeBackend

    global _step, _clear
    with edgeinfer.load(path, context=CONTEXT, threads=threads) as model:
        plan = model.plan
    engine = NativeBackend().load(ModelFiles(path=Path(path), format="gguf"), plan)
    sequence = engine.open()
    _step = lambda token: engine.step([Slice(sequence, [token])])  # noqa: E731
    _clear = lambda: engine.trim(sequence, 0)  # noqa: E731


def load_llamacpp(path: str, threads: int) -> None:
    """Makes this process one of llama.cpp."""
    from llamacpp_peer import LlamaCpp

    global _step, _clear
    peer = LlamaCpp(Path(path), context=CONTEXT, batch=CONTEXT, threads=threads)
    _step = lambda token: peer.step([token])  # noqa: E731
    _clear = peer.clear


def generate(seconds: float) -> float:
    """Tokens per second of a greedy loop."""
    count, start = 0, time.perf_counter()
    token = 1
    while (elapsed := time.perf_counter() - start) < seconds:
        if count % NEW_TOKENS == 0:
            _clear()
        token = int(_step(token)[-1].argmax())
        count += 1
    return count / elapsed


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """So many shells that never rest."""
    shells = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(count)]
    try:
        yield
    finally:
        for shell in shells:
            shell.kill()
            shell.wait()


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2", help="a reference or a GGUF file")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--busy", type=numbers, default=[0, 1, 2], metavar="N[,N...]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure")
    options = parser.parse_args()

    from edgeinfer.store import resolve

    path = str(resolve(options.model).path)
    spawn = multiprocessing.get_context("spawn")

    def process(load: Any, threads: int) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, spawn, initializer=load, initargs=(path, threads))

    engines = {
        "one": process(load_ours, 1),
        "edgeinfer": process(load_ours, options.threads),
        "llamacpp": process(load_llamacpp, options.threads),
    }
    for engine in engines.values():
        engine.submit(generate, 0.1).result()
    speeds: dict[tuple[int, str], list[float]] = {}
    for _ in range(options.rounds):
        for busy in options.busy:
            with busy_processes(busy):
                for name, engine in engines.items():
                    speed = engine.submit(generate, options.seconds).result()
                    speeds.setdefault((busy, name), []).append(speed)
    rows = [row(speeds, busy, options.busy[0]) for busy in options.busy]
    print(record.table(rows, COLUMNS))
    about = {
        **record.context(["edgeinfer", "llama-cpp-python"]),
        "model": Path(path).name,
        "threads": options.threads,
        "rounds": options.rounds,
    }
    print(record.save("contention", about, rows))


def row(speeds: dict[tuple[int, str], Sequence[float]], busy: int, calm: int) -> dict[str, Any]:
    """Medians beside `busy` processes; share_of_one is of the calm machine's one thread."""
    medians = {
        name: statistics.median(speeds[busy, name]) for name in ("one", "edgeinfer", "llamacpp")
    }
    alone = statistics.median(speeds[calm, "one"])
    return {
        "busy": busy,
        **medians,
        "share_of_one": medians["edgeinfer"] / alone,
        "ratio": medians["edgeinfer"] / medians["llamacpp"],
    }


if __name__ == "__main__":
    main()
