"""``edgeinfer list``: the models on this machine."""

from __future__ import annotations

import click

from edgeinfer.cli import ui


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a list of records.")
def command(as_json: bool) -> None:
    """List the models on this machine.

    Those that edgeinfer pulled, those in the Hugging Face cache, and those that Ollama and
    LM Studio have; any of the references can be chatted with.
    """
    from edgeinfer import store

    names = {reference: name for name, reference in store.short_names().items()}
    models = store.list_models()
    if as_json:
        ui.emit_json([model.to_json() | {"name": names.get(model.reference)} for model in models])
        return
    if not models:
        ui.note("no models yet; edgeinfer pull smollm2 fetches a small one")
        return
    rows = [
        (
            names.get(model.reference, model.reference),
            ui.format_bytes(model.bytes),
            model.quant or model.format,
            model.source,
        )
        for model in models
    ]
    ui.table(rows, ("MODEL", "SIZE", "QUANT", "SOURCE"))
