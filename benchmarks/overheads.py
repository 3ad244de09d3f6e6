"""What a user waits for besides the model's arithmetic: loading, sampling, the loop, printing.

    python benchmarks/overheads.py [MODEL] [--rounds 5]

* load: from a file in the page cache to an engine that is ready; then the whole of ``load``, with
  header, plan, tokenizer and chat template. Resident memory grows by what is stated.
* session: a conversation of 4,096 tokens written to a file, and read back to where it can go on;
  the memory that it is read into is new each time.
* sample: one token of 151,936 logits.
* loop: ``generate`` per token, less the engine's step and the sampler: scheduling, detokenising,
  stop strings, events. The engine is a stand-in that takes no time.
* print: handing one token's text to the thread that writes it to a pipe.

The shortest of several rounds, of sessions the longest; sampling and the loop in processor time of
the thread.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import record

import edgeinfer
from edgeinfer import _native, store
from edgeinfer.arch import config_from_gguf
from edgeinfer.backends.native import plain_config, tensor_sources
from edgeinfer.cli import ui
from edgeinfer.formats.gguf import open_gguf
from edgeinfer.runtime.generator import Task, generate
from edgeinfer.runtime.sampler import NativeSampler, accept_all
from edgeinfer.runtime.scheduler import Scheduler
from edgeinfer.runtime.sequence import Sequence
from edgeinfer.tokenizer import load_tokenizer
from edgeinfer.types import SamplingParams

VOCABULARY = 151_936
TOKENS = 200
CONVERSATION = 4096
COLUMNS = {"what": "s", "figure": ".1f", "unit": "s"}
SAMPLERS = {
    "greedy": {"temperature": 0},
    "top-k 40": {"top_k": 40, "top_p": 1, "min_p": 0},
    "top-k 40, top-p, min-p": {},
    "top-k 40, penalties": {"repeat_penalty": 1.1, "frequency_penalty": 0.1},
    "greedy, 10 log-probabilities": {"temperature": 0, "logprobs": 10},
    "min-p alone": {"top_k": 0, "top_p": 1},
    "top-p alone": {"top_k": 0, "min_p": 0},
}
Row = dict[str, Any]


def row(what: str, figure: float, unit: str) -> Row:
    return {"what": what, "figure": figure, "unit": unit}


def least(rounds: int, run: Callable[[], float]) -> float:
    """The smallest of several figures, without the collector in between."""
    gc.collect()
    gc.disable()
    try:
        return min(run() for _ in range(rounds))
    finally:
        gc.enable()


def resident() -> int:
    """Bytes of memory that the process has now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def measure_load(path: Path, rounds: int) -> Iterator[Row]:
    path.read_bytes()  # into the page cache
    with open_gguf(path) as file:
        config = config_from_gguf(file, 4096)
        sources, plain = tensor_sources(file, config), plain_config(config)
    weights, grown = 0, 0

    def engine_alone() -> float:
        nonlocal weights, grown
        before, started = resident(), time.perf_counter()
        engine = _native.Engine(
            plain,
            sources,
            context=4096,
            threads=threads,
            batch=512,
            kv_type_k="f16",
            kv_type_v="f16",
        )
        seconds = time.perf_counter() - started
        weights, grown = engine.memory()["weights"], resident() - before
        engine.shutdown()
        return seconds

    def whole() -> float:
        started = time.perf_counter()
        model = edgeinfer.load(path, backend="native")
        seconds = time.perf_counter() - started
        model.close()
        return seconds

    with edgeinfer.load(path, backend="native") as model:
        threads = model.plan.threads
    seconds = least(rounds, engine_alone)
    yield row("load: engine", seconds * 1e3, "ms")
    yield row("load: engine", weights / seconds / 1e9, "GB/s")
    yield row("load: resident beyond the weights", (grown / weights - 1) * 100, "%")
    yield row("load: whole", least(rounds, whole) * 1e3, "ms")


def measure_sessions(path: Path, rounds: int) -> Iterator[Row]:
    with edgeinfer.load(path, backend="native", context=CONVERSATION) as model:
        talk = model.session()
        tokens = [token % model.tokenizer.vocab_size for token in range(100, 99 + CONVERSATION)]
        list(model.stream(talk._sequence, tokens, {"max_tokens": 0}))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "talk.session"
            started = time.perf_counter()
            talk.save(file)
            yield row("session: save", (time.perf_counter() - started) * 1e3, "ms")
            yield row("session: size", file.stat().st_size / 1e6, "MB")
            sessions = [model.session() for _ in range(rounds)]
            seconds = []
            for session in sessions:
                started = time.perf_counter()
                assert session.load(file)
                seconds.append(time.perf_counter() - started)
        yield row("session: load, longest", max(seconds) * 1e3, "ms")


def measure_samplers(rounds: int) -> Iterator[Row]:
    logits = np.random.default_rng(0).normal(0, 2.5, VOCABULARY).astype(np.float32)
    for name, options in SAMPLERS.items():
        sampler = NativeSampler(SamplingParams(**options, seed=1), VOCABULARY)
        accept_all(sampler, range(100, 5000, 7))

        def once(sampler: NativeSampler = sampler) -> float:
            started = time.thread_time()
            sampler.sample(logits)
            return time.thread_time() - started

        yield row(f"sample: {name}", least(4 * rounds, once) * 1e6, "us")


class StandIn:
    """An engine that answers at once, with the same logits."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self._logits = np.zeros((1, config.vocab_size), np.float32)
        self._logits[0, config.vocab_size // 2] = 9

    def open(self) -> int:
        """As ``Engine.open``."""
        return 0

    def step(self, batch: object) -> np.ndarray[Any, Any]:
        """As ``Engine.step``."""
        return self._logits

    def trim(self, sequence: int, length: int) -> None:
        """As ``Engine.trim``."""


def measure_loop(path: Path, rounds: int) -> Iterator[Row]:
    with open_gguf(path) as file:
        config, tokenizer = config_from_gguf(file, 4096), load_tokenizer(file)
    engine: Any = StandIn(config)
    params = SamplingParams(temperature=0, max_tokens=TOKENS, stop=["\n\n\n", "User:"])
    sampler = NativeSampler(params, config.vocab_size)
    logits = engine.step(())[0]

    def whole() -> float:
        task = Task(prompt=[1, 2, 3], params=params, decoder=tokenizer.stream())
        sequence = Sequence(engine, 4096)
        started = time.thread_time()
        for _ in generate(Scheduler(engine, 512), sequence, task):
            pass
        return time.thread_time() - started

    def sampling() -> float:
        started = time.thread_time()
        for _ in range(TOKENS):
            sampler.sample(logits)
        return time.thread_time() - started

    spent = least(rounds, whole) - least(rounds, sampling)
    yield row("loop above step, per token", spent / TOKENS * 1e6, "us")


def measure_printing(rounds: int) -> Iterator[Row]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:  # a reader that takes what comes
        os.close(writing)
        while os.read(reading, 1 << 16):
            pass
        os._exit(0)
    os.close(reading)
    terminal = sys.stdout

    def once() -> float:
        with ui.stream() as show:
            started = time.perf_counter()
            for _ in range(TOKENS):
                show(" token")
            return time.perf_counter() - started

    with os.fdopen(writing, "w") as sys.stdout:
        seconds = least(rounds, once)
    sys.stdout = terminal
    os.waitpid(pid, 0)
    yield row("print: handing over, per token", seconds / TOKENS * 1e6, "us")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="smollm2", help="a reference or a GGUF file")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    path = store.resolve(options.model).path
    rows = [
        *measure_printing(options.rounds),  # first: it forks
        *measure_samplers(options.rounds),
        *measure_loop(path, options.rounds),
        *measure_load(path, options.rounds),
        *measure_sessions(path, options.rounds),
    ]
    print(record.table(rows, COLUMNS))
    about = {**record.context(), "model": path.name, "isa": _native.isas()[0]}
    print(record.save(f"overheads_{path.stem}", about, rows))


if __name__ == "__main__":
    main()
