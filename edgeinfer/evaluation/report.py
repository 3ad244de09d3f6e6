"""An evaluation as a folder to keep: report.json, report.md, and plots beside them.

Everything is made of the records that ``edgeinfer eval --json`` prints.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeinfer.errors import EdgeInferError, UsageError
from edgeinfer.formats.atomic import AtomicFile

Record = Mapping[str, Any]

# Column -> how a record's cell is written. What a record lacks is left empty.
_PLAIN = {
    "perplexity": ("{perplexity:.4f} ± {perplexity_error:.4f}"),
}
_DISTANT = {
    "ratio to reference": "{perplexity_ratio:.4f} ± {perplexity_ratio_error:.4f}",
    "KL mean": "{kl_mean:.6f} ± {kl_mean_error:.6f}",
    "KL median": "{kl_median:.6f} ± {kl_median_error:.6f}",
    "KL 99 %": "{kl_p99:.4f} ± {kl_p99_error:.4f}",
    "KL 99.9 %": "{kl_p999:.3f} ± {kl_p999_error:.3f}",
    "KL max": "{kl_max:.3f}",
    "same top": "{top1_agreement:.2%} ± {top1_agreement_error:.2%}",
    "Δp RMS": "{p_error_rms:.3%} ± {p_error_rms_error:.3%}",
    "Δp mean": "{p_error_mean:+.3%} ± {p_error_mean_error:.3%}",
}


def label(record: Record) -> str:
    """How a model is called in tables and plots."""
    return f"{Path(record['model']).name} ({record['backend']})"


def columns(records: Sequence[Record]) -> dict[str, list[str]]:
    """The figures of all records as a table: heading -> a cell a record."""
    shown = _PLAIN | (_DISTANT if any("kl_mean" in record for record in records) else {})
    return {
        "model": [Path(record["model"]).name for record in records],
        "backend": [record["backend"] for record in records],
        "MB": [f"{record['file_bytes'] / 1e6:.1f}" for record in records],
        **{head: [form.format_map(record) for record in records] for head, form in shown.items()},
    }


def markdown(records: Sequence[Record], plots: Sequence[str] = ()) -> str:
    """The report for people."""
    first = records[0]
    text, reference = first["text"], first["reference"]
    lines = [
        "# Evaluation",
        "",
        f"- text: `{text['path']}`, {text['bytes']} bytes, SHA-256 `{text['sha256']}`",
        f"- method: {first['chunks']} chunks of {first['context']} tokens, each begun anew; the "
        f"second halves are scored, {first['tokens']} tokens (as llama.cpp's perplexity tool)",
    ]
    if reference:
        lines.append(
            f"- reference: `{reference['model']}` ({reference['backend']} {reference['version']}), "
            f"perplexity {first['reference_perplexity']:.4f} "
            f"± {first['reference_perplexity_error']:.4f}"
        )
    lines += [
        f"- machine: {first['machine']}, edgeinfer {first['edgeinfer']}",
        "",
        *table(columns(records)),
        "",
        "± is a standard error. KL is KL(reference ‖ model) in nats a token; Δp is the model's "
        "probability of the token that came less the reference's."
        if reference
        else "± is a standard error.",
        "",
    ]
    for plot in plots:
        lines += [f"![{Path(plot).stem.replace('_', ' ')}]({plot})", ""]
    return "\n".join(lines)


def check_folder(folder: Path) -> None:
    """Finds out before anything is measured whether a report can be written.

    Raises:
        UsageError: the folder, or the one to make it in, is a file or cannot be written to.
    """
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise UsageError(f"{nearest}: not a folder", hint="--report names the folder to write")
    if not os.access(nearest, os.W_OK):
        raise UsageError(f"{nearest}: cannot be written to", hint="choose another --report")


def write(folder: Path, records: Sequence[Record], *, plots: bool) -> list[Path]:
    """Writes the report and returns its files.

    Raises:
        UnsupportedError: plots are wanted and matplotlib is not installed.
        EdgeInferError: a file cannot be written.
    """
    drawn: dict[str, bytes] = {}
    if plots:
        from edgeinfer.evaluation import plots as drawing

        drawn = drawing.draw(records)
    whole = json.dumps(list(records), indent=1, ensure_ascii=False) + "\n"
    files = {
        "report.json": whole.encode(),
        **drawn,
        "report.md": markdown(records, list(drawn)).encode(),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdgeInferError(f"{folder}: cannot be made: {error.strerror}") from error
    for name, octets in files.items():
        with AtomicFile(folder / name) as file:
            file.write(octets)
    return [folder / name for name in files]


def table(columns: Mapping[str, Sequence[str]], text: int = 2) -> list[str]:
    """Lines of a Markdown table: heading -> a cell a row; the first ``text`` columns flush left."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rows = zip(*columns.values(), strict=True)
    rule = ["---"] * text + ["---:"] * (len(columns) - text)
    return [line(list(columns)), line(rule), *(line(row) for row in rows)]
