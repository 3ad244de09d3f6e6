"""What calibrate and convert share: importance matrices, collected or read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeinfer.cli import ui

if TYPE_CHECKING:
    from edgeinfer.formats.imatrix import ImportanceMatrix


def importance_of(
    source: Path, *, imatrix: Path | None, text_file: Path | None, threads: int | None
) -> ImportanceMatrix:
    """Reads the importance matrix of a model, or collects it."""
    from edgeinfer.calibration.sources import as_gguf
    from edgeinfer.formats.imatrix import read_imatrix

    if imatrix is not None:
        return read_imatrix(imatrix)
    with as_gguf(source, exact=False) as path:
        return collected(path, text_file, threads=threads)


def collected(
    path: Path,
    text_file: Path | None,
    *,
    context: int = 512,
    chunks: int | None = None,
    output: bool = False,
    threads: int | None = None,
) -> ImportanceMatrix:
    """Lets a GGUF read a text, or the one that comes with edgeinfer, and shows how far it is."""
    from edgeinfer.calibration.collect import collect
    from edgeinfer.calibration.opened import open_model
    from edgeinfer.calibration.text import NAME, calibration_text, read_text
    from edgeinfer.runtime.evaluation import text_chunks

    text = read_text(text_file) if text_file else calibration_text()
    with open_model(path, context=context, threads=threads) as opened:
        pieces = text_chunks(opened.tokenizer, text, context=context, limit=chunks)
        label = f"reading {len(pieces)} chunks"
        with ui.progress(label, len(pieces) * context, unit="tok") as bar:
            return collect(
                opened.engine,
                opened.matrices,
                pieces,
                dataset=str(text_file) if text_file else NAME,
                output=output,
                progress=bar.to,
            )
