"""The README's table of speeds, from the results of compare.py.

A line is a test in one state of the machine: our tokens per second, their share of the ceiling that
counts (the integer peak for prompts, the memory's speed for generation), and how many times as fast
we are as each peer's fastest variant, with the least and the most of a round.

    python benchmarks/summary.py benchmarks/results/compare_*.json
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import record
from compare import OURS, best
from contestants import group


def lines(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line a test and state, with a column a peer."""
    tests: defaultdict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        tests[tuple(row[key] for key in ("model", "kv", "threads", "test", "state"))].append(row)
    peers = dict.fromkeys(group(row["engine"]) for row in rows if row["engine"] != OURS)
    found = []
    for variants in tests.values():
        fastest = {group(row["engine"]): row for row in best(variants)}
        ours = fastest.get(OURS)
        if ours is None:  # the machine was in this state only while a peer ran
            continue
        reads = ours["test"].startswith("pp")
        found.append(
            {
                "model": ours["model"],
                "threads": ours["threads"],
                "test": ours["test"],
                "stream GB/s": ours["stream"],
                "peak GMAC/s": ours["peak"],
                "edgeinfer, tokens/s": ours["tokens_per_second"],
                "of ceiling": ours["of_peak" if reads else "of_stream"],
                **{peer: fastest[peer]["ours_is"] if peer in fastest else "" for peer in peers},
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="+")
    options = parser.parse_args()
    rows = [row for path in options.results for row in json.loads(path.read_text())["rows"]]
    found = lines(rows)
    formats = {
        "threads": "d",
        "stream GB/s": ".0f",
        "peak GMAC/s": ".0f",
        "edgeinfer, tokens/s": ",.0f",
        "of ceiling": ".0%",
    }
    print(record.table(found, {title: formats.get(title, "s") for title in found[0]}))


if __name__ == "__main__":
    main()
