"""Writes the tables of docs/quality.md anew from the results that benchmarks saved."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

import record

DOCUMENT = record.RESULTS.parent.parent / "docs" / "quality.md"
SMOLLM2, SMALL = "SmolLM2", "small Llama"

Row = dict[str, Any]
Cells = dict[str, str]


def saved(name: str) -> Row:
    found: Row = json.loads((record.RESULTS / f"{name}.json").read_text())
    return found


def side_by_side(
    key: str, results: dict[str, Iterable[Row]], cells: Callable[[Row], Cells]
) -> list[Cells]:
    """A line for each value of ``key``, with the cells of each model that has it."""
    lines: dict[str, Cells] = {}
    for model, rows in results.items():
        for row in rows:
            line = lines.setdefault(row[key], {key: f"`{row[key]}`"})
            line.update({f"{model}: {title}": text for title, text in cells(row).items()})
    return list(lines.values())


def encoder(row: Row) -> Cells:
    return {
        "weight error": f"{row['error_ratio']:.3f}",
        "KL": f"{row['kl_ratio']:.3f} ± {row['kl_ratio_error']:.3f}",
        "KL in llama.cpp": f"{row['ratio_in_llamacpp']:.3f} ± {row['ratio_in_llamacpp_error']:.3f}",
    }


def importance(row: Row) -> Cells:
    return {
        "without": f"{row['kl_plain']:.3g}",
        "with": f"{row['kl_weighted']:.3g}",
        "less": f"{row['less']:.0%}",
    }


def sized(row: Row) -> Cells:
    return {
        "llama-quantize": f"{row['kl_theirs']:.3g}",
        "edgeinfer": f"{row['kl_ours']:.3g}",
        "less": f"{row['less']:.0%}",
    }


def mixes(types: str) -> list[Cells]:
    return side_by_side(
        "mix",
        {
            model: [
                row
                for row in saved(name)["rows"]
                if row["backend"] == "native" and row["types"] == types
            ]
            for model, name in ((SMOLLM2, "budget_smollm2"), (SMALL, "budget_small"))
        },
        sized,
    )


def speed(row: Row) -> Cells:
    return {
        "type": f"`{row['type']}`",
        "plain": f"{row['speedup']:.1f}x",
        "with importance": f"{row['weighted_speedup']:.1f}x",
    }


def engine(row: Row) -> Cells:
    return {
        "type": f"`{row['type']}`",
        "KL, edgeinfer": f"{row['kl_edgeinfer']:.2e}",
        "KL, llama.cpp": f"{row['kl_llamacpp']:.2e}",
        "ratio": f"{row['ratio']:.3f}",
        "best token, edgeinfer": f"{row['top1_edgeinfer']:.1%}",
        "best token, llama.cpp": f"{row['top1_llamacpp']:.1%}",
    }


TABLES: dict[str, Callable[[], list[Cells]]] = {
    "encoders": lambda: side_by_side(
        "recipe",
        {SMOLLM2: saved("encoders")["rows"], SMALL: saved("encoders_small")["rows"]},
        encoder,
    ),
    "encoders with importance": lambda: side_by_side(
        "recipe",
        {
            SMALL: saved("encoders_small_calibrated")["rows"],
            SMOLLM2: saved("encoders_calibrated")["rows"],
        },
        encoder,
    ),
    "encoding": lambda: [speed(row) for row in saved("encoders_small_calibrated")["times"]],
    "importance": lambda: side_by_side(
        "quant",
        {SMALL: saved("imatrix_small")["rows"], SMOLLM2: saved("imatrix_smollm2")["rows"]},
        importance,
    ),
    "sizes": lambda: mixes("all"),
    "sizes without": lambda: mixes("but q4_1, q5_1"),
    "engine": lambda: [engine(row) for row in saved("quality")["rows"]],
}


def markdown(lines: list[Cells]) -> str:
    titles = list(dict.fromkeys(title for line in lines for title in line))
    return record.table(
        [{title: line.get(title, "") for title in titles} for line in lines],
        dict.fromkeys(titles, "s"),
    )


def renewed(text: str) -> str:
    """The document with what stands between a table's marks replaced by the table."""

    def table(mark: re.Match[str]) -> str:
        return f"{mark[1]}\n{markdown(TABLES[mark[2]]())}\n{mark[3]}"

    return re.sub(r"(<!-- table: (.+?) -->)\n.*?(<!-- end -->)", table, text, flags=re.DOTALL)


def main() -> None:
    DOCUMENT.write_text(renewed(DOCUMENT.read_text()))


if __name__ == "__main__":
    main()
