"""Time to the first text of a whole process, beside llama.cpp's programs: what a user waits.

``edgeinfer run MODEL hi`` against llama-completion (its chat program, as it is and without its
warm-up run) and llama-simple (a loop of a hundred lines, no chat template) on the same file, with
each program's own number of threads. The clock runs from the start of the process to the first
character of the answer; the second time is that of the whole process with 16 tokens. The programs
take turns, with the file in the page cache.

    python benchmarks/first_token.py [MODEL] [--bin FOLDER_OF_LLAMA_CPP] [--rounds 10]
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import record

from edgeinfer import store

PROMPT, NEW_TOKENS = "hi", "16"
COLUMNS = {
    "program": "s",
    "first_text_seconds": ".3f",
    "least": ".3f",
    "most": ".3f",
    "whole_seconds": ".3f",
    "ours_is": "s",
}


@dataclass(frozen=True, slots=True)
class Program:
    """A command line that answers the prompt."""

    command: Sequence[str]
    echoed: str = ""  # what it prints before the answer


def programs(model: str, folder: Path | None) -> Mapping[str, Program]:
    """Ours, and those of llama.cpp that are there."""
    path = str(store.resolve(model).path)
    run = (sys.executable, "-m", "edgeinfer", "run", model, PROMPT, "-n", NEW_TOKENS)
    found = {"edgeinfer run": Program(run)}
    common = ("-m", path, "-n", NEW_TOKENS)
    completion = _find("llama-completion", folder)
    if completion is not None:
        chat = (completion, *common, "-p", PROMPT, "-st", "--no-display-prompt")
        found["llama-completion"] = Program(chat)
        found["llama-completion --no-warmup"] = Program((*chat, "--no-warmup"))
    simple = _find("llama-simple", folder)
    if simple is not None:
        found["llama-simple"] = Program((simple, *common, PROMPT), echoed=PROMPT)
    return found


def _find(name: str, folder: Path | None) -> str | None:
    return shutil.which(name, path=None if folder is None else str(folder))


def measure(program: Program) -> tuple[float, float]:
    """Seconds to the first character of the answer, and to the end of the process."""
    start = time.perf_counter()
    with subprocess.Popen(
        program.command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
    ) as process:
        assert process.stdout is not None
        said, first = b"", None
        while part := process.stdout.read(64):
            said += part
            if first is None and said.strip().removeprefix(program.echoed.encode()):
                first = time.perf_counter() - start
    assert process.returncode == 0 and first is not None, (program.command, said)
    return first, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="smollm2", help="a reference or a GGUF file")
    parser.add_argument("--bin", type=Path, help="where llama-completion and llama-simple are")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()

    contestants = programs(options.model, options.bin)
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for number in range(options.rounds + 1):
        for name, program in contestants.items():
            seconds = measure(program)
            if number > 0:  # the first round warms the page cache
                samples[name].append(seconds)

    ours = [first for first, _ in samples["edgeinfer run"]]
    rows = []
    for name, pairs in samples.items():
        firsts = [first for first, _ in pairs]
        ratio = statistics.median(a / b for a, b in zip(firsts, ours, strict=True))
        rows.append(
            {
                "program": name,
                "first_text_seconds": statistics.median(firsts),
                "least": min(firsts),
                "most": max(firsts),
                "whole_seconds": statistics.median(whole for _, whole in pairs),
                "ours_is": "" if name == "edgeinfer run" else f"{ratio:.2f}x as fast",
                "samples": firsts,
            }
        )
    print(record.table(rows, COLUMNS))
    about = {**record.context(), "model": Path(options.model).name, "rounds": options.rounds}
    print(record.save("first_token", about, rows))


if __name__ == "__main__":
    main()
