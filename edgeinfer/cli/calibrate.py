"""``edgeinfer calibrate``: how large each matrix's inputs are on a text."""

from __future__ import annotations

from pathlib import Path

import click

from edgeinfer.cli import ui
from edgeinfer.errors import UsageError


@click.command
@click.argument("model")
@click.option(
    "-f",
    "--file",
    "text_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Text to read; by default one in many languages that comes with edgeinfer.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default="imatrix.gguf", show_default=True
)
@click.option(
    "-c", "--context", "--ctx-size", type=click.IntRange(min=16), default=512, show_default=True,
    help="Tokens of a chunk, which is read in a context of its own.",
)  # fmt: skip
@click.option("--chunks", type=click.IntRange(min=1), help="At most so many.")
@click.option("--process-output", is_flag=True, help="The output matrix as well.")
@click.option("-t", "--threads", type=click.IntRange(min=1), help="Compute threads.")
@click.option("--offline", is_flag=True, help="Never ask the network.")
@click.option("--json", "as_json", is_flag=True, help="Print a record.")
def command(
    model: str,
    text_file: Path | None,
    output: Path,
    context: int,
    chunks: int | None,
    process_output: bool,
    threads: int | None,
    offline: bool,
    as_json: bool,
) -> None:
    """Collect the importance matrix of MODEL, for convert --imatrix and llama-quantize.

    MODEL is best a GGUF in f16 or q8_0. The file that is written is llama.cpp's GGUF format.
    """
    from edgeinfer.cli._calibration import collected
    from edgeinfer.cli._fetch import fetch_gguf
    from edgeinfer.formats.atomic import check_writable
    from edgeinfer.formats.imatrix import write_imatrix

    path = Path(fetch_gguf(model, offline=offline).path)
    for read in (path, *([text_file] if text_file else [])):
        if output.exists() and output.samefile(read):
            raise UsageError(f"{output}: that is what is read", hint="choose another output")
    check_writable(output)
    matrix = collected(
        path,
        text_file,
        context=context,
        chunks=chunks,
        output=process_output,
        threads=threads,
    )
    write_imatrix(output, matrix)
    if as_json:
        ui.emit_json(
            {
                "output": str(output),
                "tensors": len(matrix.tensors),
                "chunks": matrix.chunks,
                "chunk_size": matrix.chunk_size,
            }
        )
    else:
        ui.emit(
            f"{output}: {len(matrix.tensors)} tensors, "
            f"{matrix.chunks} chunks of {matrix.chunk_size} tokens"
        )
