"""``edgeinfer convert``: a checkpoint or a GGUF file becomes a quantised GGUF file."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeinfer.cli import ui

if TYPE_CHECKING:
    from collections.abc import Mapping


@click.command
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--to", "to", default="gguf", show_default=True, help="Format of the output.")
@click.option(
    "-q", "--quant", default="q4_k_m", show_default=True, help="Quant type: f16, q8_0, q4_k_m, ..."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="File to write; by default SOURCE-QUANT.gguf in the current folder.",
)
@click.option("-t", "--threads", type=click.IntRange(min=1), help="By default one a processor.")
@click.option("--json", "as_json", is_flag=True, help="Print a report as JSON.")
def command(
    source: Path, to: str, quant: str, output: Path | None, threads: int | None, as_json: bool
) -> None:
    """Converts SOURCE to GGUF.

    SOURCE is a Hugging Face folder (config.json, safetensors, tokenizer) or a GGUF file, whose
    weights are encoded again and whose metadata is kept.
    """
    import edgeinfer

    name = source.resolve().name.removesuffix(".gguf")
    target = output or Path(f"{name}-{quant.lower()}.{to}")
    with ExitStack() as stack:
        bar: ui.Progress | None = None

        def show(progress: Any) -> None:
            nonlocal bar
            if bar is None:  # only now is it known how much there is to write
                total = progress.bytes_total
                bar = stack.enter_context(ui.progress(f"converting {name}", total))
            bar.describe(f"tensor {progress.number}/{progress.tensors}")
            bar.to(progress.bytes_out)

        report = edgeinfer.convert(
            source, to=to, quant=quant, output=target, threads=threads, progress=show
        )
    if as_json:
        ui.emit_json(report.to_json())
    else:
        _summarise(report.to_json())


def _summarise(report: Mapping[str, Any]) -> None:
    types = ", ".join(f"{count} {name}" for name, count in report["types"].items())
    ui.emit(
        f"{report['output']}: {ui.format_bytes(report['bytes_out'])} "
        f"from {ui.format_bytes(report['bytes_in'])}, "
        f"{report['bits_per_weight']:.2f} bits a weight, "
        f"{report['tensors']} tensors ({types}), {report['seconds']:.1f} s"
    )
