"""How fast is a model in backend mlc, beside the native engine and llama.cpp with the same weights?

The GGUF should be in q4_0, whose values an MLC folder in q4f16_1 keeps; the folder is made if it
is not there. Told are milliseconds a token with a nearly empty context and with 1,000 tokens, and
tokens of a prompt a second; of mlc also seconds to compile, and to load with the library there.
Each backend is measured in turns, so that all see the same machine.

    python benchmarks/mlc_speed.py --gguf llama1b-q4_0.gguf --folder llama1b-mlc
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import record

from edgeinfer.backends import registry
from edgeinfer.backends.base import Engine, ModelFiles, Slice
from edgeinfer.backends.mlc.compilation import compile_folder
from edgeinfer.device.detect import detect
from edgeinfer.planner.plan import MemoryPlan

DEEP = 1000
COLUMNS = {
    "backend": "s",
    "load_seconds": ".2f",
    "decode_ms": ".1f",
    "decode_1000_ms": ".1f",
    "prompt_tokens_per_second": ".0f",
}


def plan(threads: int) -> MemoryPlan:
    return MemoryPlan(
        backend="",
        quant="",
        context=2048,
        threads=threads,
        batch=512,
        kv_type_k="f16",
        kv_type_v="f16",
        weights_bytes=0,
        kv_bytes=0,
        scratch_bytes=0,
        runtime_bytes=0,
        budget_bytes=1,
    )


class Runner:
    """A loaded model, and what was measured of it."""

    def __init__(self, name: str, files: ModelFiles, threads: int) -> None:
        self.name = name
        start = time.perf_counter()
        self.engine: Engine = registry.named(name, files.format, detect()).backend.load(
            files, plan(threads)
        )
        self.load_seconds = time.perf_counter() - start
        self.rng = np.random.default_rng(0)
        self.short, self.deep = self.engine.open(), self.engine.open()
        self.prompts: list[float] = []
        self.decodes: dict[int, list[float]] = {self.short: [], self.deep: []}
        self.read(self.short, 8)
        while len(self.prompts) * 500 < DEEP:
            self.prompts.append(500 / self.read(self.deep, 500))

    def read(self, sequence: int, count: int) -> float:
        """Reads drawn tokens; returns seconds."""
        tokens = [int(t) for t in self.rng.integers(0, self.engine.config.vocab_size, count)]
        start = time.perf_counter()
        self.engine.step([Slice(sequence, tokens)])
        return time.perf_counter() - start

    def turn(self, tokens: int) -> None:
        """Measures tokens one by one, at both depths."""
        for sequence, seconds in self.decodes.items():
            seconds += [self.read(sequence, 1) for _ in range(tokens)]

    def row(self) -> dict[str, object]:
        """What was measured."""
        short, deep = (1e3 * statistics.median(s) for s in self.decodes.values())
        return {
            "backend": self.name,
            "load_seconds": self.load_seconds,
            "decode_ms": short,
            "decode_1000_ms": deep,
            "prompt_tokens_per_second": statistics.median(self.prompts),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--backends", default="mlc,native,llamacpp")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-compile", action="store_true", help="use the library in the folder")
    arguments = parser.parse_args()
    if not arguments.folder.is_dir():
        from edgeinfer_converters.mlc.convert import convert

        convert(arguments.gguf, arguments.folder, quant="q4f16_1")
    compiled = {}
    if not arguments.no_compile:
        device = detect()
        made = compile_folder(arguments.folder, device.machine, device=device)
        compiled = {"compile_seconds": made.seconds, "library_bytes": made.bytes}
    files = {
        "gguf": ModelFiles(path=arguments.gguf, format="gguf"),
        "mlc": ModelFiles(path=arguments.folder, format="mlc"),
    }
    runners = [
        Runner(name, files["mlc" if name == "mlc" else "gguf"], arguments.threads)
        for name in arguments.backends.split(",")
    ]
    for _ in range(arguments.rounds):
        for runner in runners:
            runner.turn(8)
    rows = [runner.row() for runner in runners]
    about = record.context(["apache-tvm", "apache-tvm-ffi", "llama-cpp-python"])
    about |= {"gguf": arguments.gguf.name, "threads": arguments.threads, **compiled}
    record.save("mlc_speed", about, rows)
    print(record.table(rows, COLUMNS))


if __name__ == "__main__":
    main()
