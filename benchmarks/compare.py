"""Ours, its peers and the machine's ceilings side by side: tokens per second of whole engines.

The engines run one after the other, never at once, round by round, so that what slows the machine
slows all. Right after each test the ceilings are measured in this process: reading memory in 2 MB
pages, and the integer dot products of operands in registers. A speed's share of them is the median
over the rounds, and so is the ratio to a peer, given with its least and most; both are of runs that
were neighbours in time.

    python benchmarks/compare.py llama1b-q4_0.gguf llama1b-q4_k.gguf --threads 1 2
    python benchmarks/compare.py MODEL --llama-bench "ik=/path/llama-bench -fa 1" \
        --llama-bench "ik/rtr=/path/llama-bench -fa 1 -rtr 1 -thp 1"
    python benchmarks/compare.py MODEL -p 1 2 4 8 16 -n 0       # small batches
    python benchmarks/compare.py MODEL -p 0 -n 16 -d 8192 32768 --kv q8_0

Peers are llama.cpp by llama-cpp-python, if it is installed, a llama-bench on the PATH, and what
--llama-bench adds. Of an engine's variants (ik, ik/rtr) the fastest of each test is compared with.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import contestants
import record
from contestants import Contestant, Setting

from edgeinfer.device import ceilings
from edgeinfer.device.ceilings import Ceilings
from edgeinfer.formats.gguf import open_gguf
from edgeinfer.runtime.benchmark import Result, Test, Work, work_of

OURS = "edgeinfer"
CEILING_SECONDS = 0.3
COLUMNS = {  # title: key and format
    "model": ("model", "s"),
    "threads": ("threads", "d"),
    "test": ("test", "s"),
    "engine": ("engine", "s"),
    "tokens/s": ("tokens_per_second", ".1f"),
    "+-": ("spread", ".0%"),
    "GB/s": ("gigabytes_per_second", ".1f"),
    "of stream": ("of_stream", ".0%"),
    "GMAC/s": ("gigamacs_per_second", ".0f"),
    "of peak": ("of_peak", ".0%"),
    "ours is": ("ours_is", "s"),
}
COST = {"of one token": ("cost_of_one", ".2f")}


@dataclass(slots=True)
class Samples:
    """What one engine did in one test, a value a round."""

    tokens_per_second: list[float]
    ceilings: list[Ceilings]

    def result(self, test: Test) -> Result:
        """The same as a benchmark's result."""
        return Result(
            test=test, samples=tuple(self.tokens_per_second), ceilings=tuple(self.ceilings)
        )


def measure(
    engines: Sequence[Contestant],
    tests: Sequence[Test],
    *,
    threads: int,
    rounds: int,
    quiet: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> dict[tuple[str, Test], Samples]:
    """Runs every test on every engine, in turns.

    Args:
        engines: loaded.
        tests: at any depths; shallow ones first, because contexts only grow.
        threads: of the ceilings.
        rounds: values to collect.
        quiet: entered around whatever is timed; not around reading a context.
    """
    samples: dict[tuple[str, Test], Samples] = {}
    for depth in sorted({test.depth for test in tests}):
        for engine in engines:
            engine.prepare(depth)
        for _ in range(rounds):
            for engine in engines:
                with quiet():
                    for test in (test for test in tests if test.depth == depth):
                        rate = engine.sample(test)
                        if rate is None:
                            continue
                        found = samples.setdefault((engine.name, test), Samples([], []))
                        found.tokens_per_second.append(rate)
                        found.ceilings.append(ceilings.measure(threads, CEILING_SECONDS))
    return samples


def rows_of(
    samples: dict[tuple[str, Test], Samples], work: Work, batch: int
) -> Iterator[dict[str, Any]]:
    """The rows of the results, test by test, ours before its peers."""
    order = list(dict.fromkeys(test for _, test in samples))
    for (engine, test), found in sorted(samples.items(), key=lambda item: order.index(item[0][1])):
        result = found.result(test)
        rate = statistics.median(found.tokens_per_second)
        ratios = _ratios(samples, test, found)
        one = samples.get((engine, Test(prompt_tokens=1, depth=test.depth)))
        yield {
            "test": test.name,
            "engine": engine,
            "tokens_per_second": rate,
            "spread": statistics.pstdev(found.tokens_per_second) / rate,
            "gigabytes_per_second": rate * work.bytes(test, batch) / test.tokens / 1e9,
            "of_stream": result.of_stream(work, batch),
            "gigamacs_per_second": rate * work.macs(test) / test.tokens / 1e9,
            "of_peak": result.of_peak(work),
            # What a step of all its tokens costs, in steps of one token.
            "cost_of_one": one and test.tokens * statistics.median(one.tokens_per_second) / rate,
            "ratio": ratios and statistics.median(ratios),
            "ratio_least": ratios and min(ratios),
            "ratio_most": ratios and max(ratios),
            "ours_is": _ratio_text(ratios) if ratios and engine != OURS else "",
            "samples": found.tokens_per_second,
            "stream_gigabytes_per_second": [
                c.stream_bytes_per_second / 1e9 for c in found.ceilings
            ],
            "peak_gigamacs_per_second": [c.int8_macs_per_second / 1e9 for c in found.ceilings],
        }


def _ratios(
    samples: dict[tuple[str, Test], Samples], test: Test, peer: Samples
) -> list[float] | None:
    """Ours over the peer, a ratio a round."""
    ours = samples.get((OURS, test))
    if ours is None:
        return None
    pairs = zip(ours.tokens_per_second, peer.tokens_per_second, strict=True)
    return [mine / theirs for mine, theirs in pairs]


def _ratio_text(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"


def best(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The fastest variant of each engine in each test."""
    fastest: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        key = (row["test"], contestants.group(row["engine"]))
        if key not in fastest or row["tokens_per_second"] > fastest[key]["tokens_per_second"]:
            fastest[key] = row
    return list(fastest.values())


@contextmanager
def loaded(setting: Setting, options: argparse.Namespace) -> Iterator[list[Contestant]]:
    """The engines, ours first."""
    engines: list[Contestant] = [contestants.ours(setting)]
    if contestants.is_installed() and not options.no_llama_cpp:
        engines.append(contestants.llama_cpp_python(setting))
    engines += [contestants.llama_bench(text, setting) for text in options.llama_bench]
    try:
        yield engines
    finally:
        for engine in engines:
            engine.close()


def work(model: Path) -> Work:
    """What the model's matrices cost."""
    with open_gguf(model) as file:
        return work_of({name: (info.shape, info.nbytes) for name, info in file.tensors.items()})


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL.gguf")
    parser.add_argument("-t", "--threads", type=int, nargs="+", default=[os.cpu_count() or 1])
    parser.add_argument("-p", "--prompt", type=int, nargs="+", default=[512], help="0: none")
    parser.add_argument("-n", "--new", type=int, nargs="+", default=[64], help="0: none")
    parser.add_argument("-d", "--depth", type=int, nargs="+", default=[0])
    parser.add_argument("-r", "--rounds", type=int, default=5)
    parser.add_argument("-b", "--batch", type=int, default=512)
    parser.add_argument("--kv", default="f16", help="the type of keys and values in the cache")
    parser.add_argument(
        "--llama-bench", action="append", default=[], metavar="NAME=PROGRAM [FLAG ...]"
    )
    parser.add_argument("--no-llama-cpp", action="store_true", help="not by llama-cpp-python")
    parser.add_argument("--all", action="store_true", help="show slower variants, too")
    parser.add_argument("--name", help="of the file in results/, after compare_")
    options = parser.parse_args(arguments)
    found = shutil.which("llama-bench")
    if found and not options.llama_bench:
        options.llama_bench.append(f"llama-bench={found}")
    return options


def compare(
    options: argparse.Namespace,
    quiet: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> list[dict[str, Any]]:
    """Measures all that the options ask for; prints each table as it is known."""
    tests = [
        *(Test(prompt_tokens=n, depth=d) for d in options.depth for n in options.prompt if n),
        *(Test(new_tokens=n, depth=d) for d in options.depth for n in options.new if n),
    ]
    rows: list[dict[str, Any]] = []
    for model in options.models:
        for threads in options.threads:
            setting = Setting(
                model=model,
                threads=threads,
                context=max(test.depth + test.tokens for test in tests),
                batch=options.batch,
                kv_types=(options.kv, options.kv),
            )
            with loaded(setting, options) as engines:
                samples = measure(
                    engines, tests, threads=threads, rounds=options.rounds, quiet=quiet
                )
            found = [
                {"model": model.stem, "threads": threads, "kv": options.kv, **row}
                for row in rows_of(samples, work(model), options.batch)
            ]
            print(show(found if options.all else best(found)), flush=True)
            rows += found
    return rows


def show(rows: Sequence[dict[str, Any]]) -> str:
    """The table; what a step costs in steps of one token only where that was measured."""
    columns = COLUMNS | (COST if all(row["cost_of_one"] for row in rows) else {})
    cells = [{title: row[key] for title, (key, _) in columns.items()} for row in rows]
    return record.table(cells, {title: spec for title, (_, spec) in columns.items()})


def main() -> None:
    options = parse()
    about = {
        **record.context(["llama-cpp-python"]),
        "rounds": options.rounds,
        "batch": options.batch,
        "llama_bench": [Path(text).name for text in options.llama_bench],
    }
    rows = compare(options)
    name = options.name or "_".join(model.stem for model in options.models)
    print(record.save(f"compare_{name}", about, rows))


if __name__ == "__main__":
    main()
