"""``edgeinfer compile``: makes a library of an MLC folder, for this machine or another."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from edgeinfer.cli import ui


@click.command
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--target",
    default=None,
    help="x86_64, aarch64, android, adreno, macos, iphone or webgpu; this machine's by default.",
)
@click.option("--isa", help="Of x86_64: avx512, avxvnni, avx2; of aarch64: neon_dotprod, neon.")
@click.option(
    "-ctk", "--cache-type", "kv_type", default="f16", show_default=True, help="f16 or f32."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file; by default one in MODEL, where --backend mlc finds it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a record.")
def command(
    model: Path,
    target: str | None,
    isa: str | None,
    kv_type: str,
    output: Path | None,
    as_json: bool,
) -> None:
    """Compile MODEL, an MLC folder, with Apache TVM.

    Libraries for processors (.so) run without the compiler. For other devices there is an archive
    of objects (.tar), which that device's own tools link. What cannot be run here is only looked
    at, and the answer says so.
    """
    from edgeinfer.backends.mlc.compilation import compile_folder
    from edgeinfer.device.detect import detect

    device = detect()
    made = compile_folder(
        model, target or device.machine, device=device, isa=isa, kv_type=kv_type, output=output
    )
    if as_json:
        ui.emit_json(asdict(made))
        return
    for_what = f"{made.target} ({made.isa})" if made.isa else made.target
    ui.emit(
        f"{made.output}: {for_what}, {ui.format_bytes(made.bytes)}, {made.seconds:g} s; "
        f"{'; '.join(made.checked)}"
    )
    if not made.executed:
        left = f"; {made.needs}" if made.needs else ""
        ui.emit(f"not executed: this machine cannot run it{left}")
