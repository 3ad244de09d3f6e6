"""``edgeinfer rm``: deletes models that were downloaded."""

from __future__ import annotations

import click

from edgeinfer.cli import ui


@click.command()
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print a record for each.")
def command(models: tuple[str, ...], as_json: bool) -> None:
    """Delete each MODEL from this machine.

    Only what edgeinfer or the Hugging Face cache holds; files of your own and of other
    programs are left alone.
    """
    from edgeinfer import store

    for model in models:
        removed = store.remove(model)
        if as_json:
            ui.emit_json({"reference": removed.reference, "bytes": removed.bytes})
        else:
            ui.emit(f"removed {removed.reference}, {ui.format_bytes(removed.bytes)} freed")
