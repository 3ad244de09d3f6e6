"""``edgeinfer embed``: a vector a text."""

from __future__ import annotations

import sys
from typing import Any

import click

from edgeinfer.cli import ui
from edgeinfer.cli._model_options import model_options, take_model


@click.command()
@click.argument("model")
@click.argument("texts", metavar="[TEXT]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print a record a text.")
@model_options
def command(model: str, texts: tuple[str, ...], as_json: bool, **values: Any) -> None:
    """Print the embedding of each TEXT (default: each line of standard input).

    An embedding is a vector of length 1, made of the tokens' hidden states as the file says;
    texts of like meaning have a large dot product. A line is a vector, numbers between spaces.
    """
    loader = take_model(values)
    if not texts:
        texts = tuple(line for line in sys.stdin.read().splitlines() if line.strip())
    if not texts:
        raise click.UsageError("there is no text: give TEXT or standard input")
    with loader.open(model) as opened:
        for text in texts:
            vector = opened.embed([text])[0].tolist()
            if as_json:
                ui.emit_json({"text": text, "embedding": vector})
            else:
                ui.emit(" ".join(f"{value:.7g}" for value in vector))
