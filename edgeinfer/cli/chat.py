"""``edgeinfer chat``: a conversation in the terminal."""

from __future__ import annotations

import sys
from typing import Any

import click

from edgeinfer.cli import ui
from edgeinfer.cli._model_options import (
    model_options,
    sampling_options,
    take_model,
    take_sampling,
)


@click.command()
@click.argument("model", required=False)
@click.option("-m", "--model", "named_model", metavar="MODEL", help="The same as MODEL.")
@click.option("-s", "--system", metavar="TEXT", help='The system message ("": none).')
@model_options
@sampling_options
def command(model: str | None, named_model: str | None, system: str | None, **values: Any) -> None:
    """Chat with MODEL (default: smollm2).

    At the prompt, /help lists the commands. Ctrl-C stops an answer, Ctrl-D leaves. Where
    standard input is no terminal, each of its lines is a message (\"\"\" ... \"\"\" makes one
    of several lines), the answers go to standard output, and the end of input leaves.
    """
    if model and named_model:
        raise click.UsageError("give the model once, as MODEL or with -m")
    loader, sampling = take_model(values), take_sampling(values)

    from edgeinfer.cli import _input
    from edgeinfer.cli._repl import Repl
    from edgeinfer.runtime.loading import DEFAULT_MODEL

    with loader.open(model or named_model or DEFAULT_MODEL) as opened:
        chosen = opened.system if system is None else system
        repl = Repl(opened, system=chosen, sampling=sampling)
        if sys.stdin.isatty():
            plan = opened.plan
            ui.note(f"{opened.reference} ({plan.quant}), context {plan.context}; /help for help")
            repl.converse(_input.TerminalInput(list(repl.commands)))
        else:
            repl.answer_all(_input.PipedInput(sys.stdin))
