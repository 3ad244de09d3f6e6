"""``edgeinfer tokenize``: text to tokens and back."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from edgeinfer.cli import ui

if TYPE_CHECKING:
    from edgeinfer.tokenizer import Tokenizer


@click.command()
@click.argument("model")
@click.argument("text", required=False)
@click.option("--ids", is_flag=True, help="Print the ids only, on one line.")
@click.option("--decode", is_flag=True, help="TEXT is ids; print their text.")
@click.option("--no-special", is_flag=True, help="Add no begin- or end-of-text token.")
@click.option("--literal", is_flag=True, help="Take <|im_end|> and the like as plain text.")
@click.option("--offline", is_flag=True, help="Never ask the network.")
@click.option("--json", "as_json", is_flag=True, help="Print a record.")
def command(
    model: str,
    text: str | None,
    ids: bool,
    decode: bool,
    no_special: bool,
    literal: bool,
    offline: bool,
    as_json: bool,
) -> None:
    """Show the tokens of TEXT (default: standard input) as MODEL sees them.

    MODEL is a model as for chat, or a folder or file that has a tokenizer only.
    """
    from edgeinfer.cli._fetch import fetch
    from edgeinfer.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(fetch(model, offline=offline).path)
    if text is None:
        text = sys.stdin.read()
    if decode:
        _decode(tokenizer, text, as_json)
        return
    tokens = tokenizer.encode(text, add_special=not no_special, parse_special=not literal)
    if as_json:
        pieces = [_piece(tokenizer, token) for token in tokens]
        ui.emit_json({"tokens": tokens, "pieces": pieces, "count": len(tokens)})
    elif ids:
        ui.emit(" ".join(map(str, tokens)))
    else:
        ui.table([[token, repr(_piece(tokenizer, token))] for token in tokens], ["id", "text"])
        ui.note(f"{len(tokens)} tokens")


def _decode(tokenizer: Tokenizer, text: str, as_json: bool) -> None:
    words = text.replace(",", " ").replace("[", " ").replace("]", " ").split()
    try:
        tokens = [int(word) for word in words]
    except ValueError as error:
        raise click.UsageError(f"--decode takes ids: {error}") from None
    decoded = tokenizer.decode(tokens)
    if as_json:
        ui.emit_json({"tokens": tokens, "text": decoded})
    else:
        ui.emit(decoded)


def _piece(tokenizer: Tokenizer, token: int) -> str:
    """The token's own text; bytes that are no whole character show as U+FFFD."""
    return tokenizer.token_bytes(token).decode(errors="replace")
