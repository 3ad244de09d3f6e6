"""Ours, its peers and the machine's ceilings side by side: tokens per second of whole engines.

The engines run one after the other, never at once, round by round, so that what slows the machine
slows all. Right after each test the ceilings are measured in this process: reading memory in 2 MB
pages, and the integer dot products of operands in registers. Where the speed of memory changes a
lot between rounds, as it does on a machine of many tenants, the rounds with slow and with fast
memory are tables of their own. A speed's share of the ceilings is the median over the rounds, and
so is the ratio to a peer, given with its least and most, of the same rounds.

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
import math
import os
import shutil
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import contestants
import record
from contestants import Contestant, Setting

from edgeinfer import quant, store
from edgeinfer.device import ceilings
from edgeinfer.device.ceilings import Ceilings
from edgeinfer.formats.gguf import open_gguf
from edgeinfer.runtime.benchmark import Result, Test, Work, work_of

OURS = "edgeinfer"
CEILING_SECONDS = 0.3
COLUMNS = {  # title: key and format
    "model": ("model", "s"),
    "threads": ("threads", "d"),
    "stream GB/s": ("stream", ".0f"),
    "peak GMAC/s": ("peak", ".0f"),
    "test": ("test", "s"),
    "engine": ("engine", "s"),
    "rounds": ("rounds", "d"),
    "tokens/s": ("tokens_per_second", ".1f"),
    "+-": ("spread", ".0%"),
    "GB/s": ("gigabytes_per_second", ".1f"),
    "of stream": ("of_stream", ".0%"),
    "GMAC/s": ("gigamacs_per_second", ".0f"),
    "of peak": ("of_peak", ".0%"),
    "ours is": ("ours_is", "s"),
}
COST = {"of one token": ("cost_of_one", ".2f")}
# A machine of many tenants has states: memory is much faster or slower for a while.
SAME_STATE = 1.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What an engine did in one test in one round, and what the machine could do just then."""

    engine: str
    test: Test
    round: int
    tokens_per_second: float
    ceilings: Ceilings

    @property
    def stream(self) -> float:
        """Bytes a second."""
        return self.ceilings.stream_bytes_per_second


def measure(
    engines: Sequence[Contestant],
    tests: Sequence[Test],
    *,
    threads: int,
    rounds: int,
    quiet: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> list[Sample]:
    """Runs every test on every engine, in turns.

    Args:
        engines: loaded.
        tests: at any depths; shallow ones first, because contexts only grow.
        threads: of the ceilings.
        rounds: values to collect.
        quiet: entered around whatever is timed; not around reading a context.
    """
    samples: list[Sample] = []
    for depth in sorted({test.depth for test in tests}):
        for engine in engines:
            engine.prepare(depth)
        for number in range(rounds):
            for engine in engines:
                with quiet():
                    for test in (test for test in tests if test.depth == depth):
                        rate = engine.sample(test)
                        if rate is None:
                            continue
                        sample = Sample(
                            engine=engine.name,
                            test=test,
                            round=number,
                            tokens_per_second=rate,
                            ceilings=ceilings.measure(threads, CEILING_SECONDS),
                        )
                        samples.append(sample)
    return samples


def states(samples: Sequence[Sample]) -> list[list[Sample]]:
    """The samples as one group, or as those with slow and those with fast memory."""
    speeds = [sample.stream for sample in samples]
    least, most = min(speeds), max(speeds)
    if most < SAME_STATE * least:
        return [list(samples)]
    middle = math.sqrt(least * most)
    slow = [sample for sample in samples if sample.stream < middle]
    return [slow, [sample for sample in samples if sample.stream >= middle]]


def rows_of(
    samples: Sequence[Sample], work_of: Callable[[str], Work], batch: int
) -> Iterator[dict[str, Any]]:
    """The rows of one state of the machine, test by test, ours before its peers.

    ``work_of`` says of an engine's name what the matrices cost it.
    """
    engines = sorted({sample.engine for sample in samples}, key=lambda name: name != OURS)
    found: dict[tuple[Test, str], list[Sample]] = {
        (test, engine): [s for s in samples if (s.test, s.engine) == (test, engine)]
        for test in dict.fromkeys(sample.test for sample in samples)
        for engine in engines
    }
    for (test, engine), mine in found.items():
        if not mine:
            continue
        limits = tuple(sample.ceilings for sample in mine)
        rates = tuple(sample.tokens_per_second for sample in mine)
        result = Result(test=test, samples=rates, ceilings=limits)
        rate = statistics.median(rates)
        ratios = _ratios(found.get((test, OURS), []), mine)
        work = work_of(engine)
        one = found.get((Test(prompt_tokens=1, depth=test.depth), engine))
        yield {
            "stream": statistics.median(c.stream_bytes_per_second for c in limits) / 1e9,
            "peak": statistics.median(c.int8_macs_per_second for c in limits) / 1e9,
            "test": test.name,
            "engine": engine,
            "rounds": len(rates),
            "tokens_per_second": rate,
            "spread": statistics.pstdev(rates) / rate,
            "gigabytes_per_second": rate * work.bytes(test, batch) / test.tokens / 1e9,
            "of_stream": result.of_stream(work, batch),
            "gigamacs_per_second": rate * work.macs(test) / test.tokens / 1e9,
            "of_peak": result.of_peak(work),
            # What a step of all its tokens costs, in steps of one token.
            "cost_of_one": test.prompt_tokens * _median_rate(one) / rate if one else 0.0,
            "ratio": statistics.median(ratios) if ratios else None,
            "ratio_least": min(ratios, default=None),
            "ratio_most": max(ratios, default=None),
            "ours_is": _ratio_text(ratios) if engine != OURS else "",
            "samples": rates,
            "streams": [c.stream_bytes_per_second / 1e9 for c in limits],
            "peaks": [c.int8_macs_per_second / 1e9 for c in limits],
        }


def _median_rate(samples: Sequence[Sample]) -> float:
    return statistics.median(sample.tokens_per_second for sample in samples)


def _ratios(ours: Sequence[Sample], peers: Sequence[Sample]) -> list[float]:
    """Ours over the peer, for each round that both have."""
    rates = {sample.round: sample.tokens_per_second for sample in ours}
    return [rates[s.round] / s.tokens_per_second for s in peers if s.round in rates]


def _ratio_text(ratios: Sequence[float]) -> str:
    if not ratios:
        return ""
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


def work(model: Path, engine: str) -> Work:
    """What the model's matrices cost; ours keeps some in another form than the file."""
    with open_gguf(model) as file:
        tensors = {
            name: (
                info.shape,
                quant.get(info.type).packed_nbytes(info.shape) if engine == OURS else info.nbytes,
            )
            for name, info in file.tensors.items()
        }
        return work_of(tensors, file.metadata)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["smollm2"], help="references or GGUF files")
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
    for reference in options.models:
        model = store.resolve(reference).path
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
            for state, part in enumerate(states(samples)):
                about = {"model": model.stem, "threads": threads, "kv": options.kv, "state": state}
                found = [about | row for row in rows_of(part, partial(work, model), options.batch)]
                print(show(found if options.all else best(found)), flush=True)
                rows += found
    return rows


def show(rows: Sequence[dict[str, Any]]) -> str:
    """The table; what a step costs in steps of one token only where that was measured."""
    columns = COLUMNS | (COST if any(row["cost_of_one"] for row in rows) else {})
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
    name = options.name or "_".join(Path(model).stem for model in options.models)
    print(record.save(f"compare_{name}", about, rows))


if __name__ == "__main__":
    main()
