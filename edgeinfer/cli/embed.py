"""``edgeinfer embed``: a vector a text."""

from __future__ import annotations

import sys
from typing import Any

import click

from edgeinfer.cli import ui
from edgeinfer.cli._model_options import model_options, take_model

_TOGETHER = 64  # texts, whose vectors are printed together


@click.command()
@click.argument("model")
@click.argument("texts", metavar="[TEXT]...", nargs=-1)
@click.option("--truncate", is_flag=True, help="Leave the end of too long texts out.")
@click.option("--json", "as_json", is_flag=True, help="Print a record a text.")
@model_options
def command(
    model: str, texts: tuple[str, ...], truncate: bool, as_json: bool, **values: Any
) -> None:
    """Print the embedding of each TEXT (default: each line of standard input).

    An embedding is a vector of length 1, made of the tokens' hidden states as the file says;
    texts of like meaning have a large dot product.
    A line is a vector, numbers between spaces. A text longer than the context is an error.
    """
    loader = take_model(values)
    if not texts:
        texts = tuple(line for line in sys.stdin.read().splitlines() if line.strip())
    if not texts:
        raise click.UsageError("there is no text: give TEXT or standard input")
    with loader.open(model) as opened:
        for first in range(0, len(texts), _TOGETHER):
            group = texts[first : first + _TOGETHER]
            vectors = opened.embed(group, truncate=truncate).tolist()
            for text, vector in zip(group, vectors, strict=True):
                if as_json:
                    ui.emit_json({"text": text, "embedding": vector})
                else:
                    ui.emit(" ".join(f"{value:.7g}" for value in vector))
