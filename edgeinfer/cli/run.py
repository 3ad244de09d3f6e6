"""``edgeinfer run``: one prompt, one answer."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeinfer.cli import ui
from edgeinfer.cli._model_options import (
    model_options,
    sampling_options,
    take_model,
    take_sampling,
)

if TYPE_CHECKING:
    from edgeinfer.runtime.model import Model
    from edgeinfer.types import TokenEvent


@click.command()
@click.argument("model", required=False)
@click.argument("prompt", nargs=-1)
@click.option("-m", "--model", "named_model", metavar="MODEL", help="The same as MODEL.")
@click.option("-p", "--prompt", "prompt_option", metavar="TEXT", help="The prompt.")
@click.option(
    "-f", "--file", type=click.Path(path_type=Path), help="A file with (more of) the prompt."
)
@click.option("-s", "--system", metavar="TEXT", help='The system message ("": none).')
@click.option("--raw", is_flag=True, help="Continue the text as it is, without chat template.")
@click.option("--logprobs", type=int, default=0, help="With --json: alternatives a token.")
@click.option("--json", "as_json", is_flag=True, help="Print a record a token, then a summary.")
@model_options
@sampling_options
def command(
    model: str | None,
    prompt: tuple[str, ...],
    named_model: str | None,
    prompt_option: str | None,
    file: Path | None,
    system: str | None,
    raw: bool,
    logprobs: int,
    as_json: bool,
    **values: Any,
) -> None:
    """Answer PROMPT with MODEL and exit.

    The prompt is what is given of -p, PROMPT, -f and standard input, in this order, with
    an empty line between: cat report.txt | edgeinfer run smollm2 "Summarise:".
    """
    loader, sampling = take_model(values), take_sampling(values)
    if named_model is not None and model is not None:  # with -m all words are the prompt
        prompt = (model, *prompt)
    reference = named_model or model
    if reference is None:
        raise click.UsageError("which MODEL?")
    text = _gather(prompt_option, " ".join(prompt), file)
    if not text:
        raise click.UsageError("there is no prompt: give PROMPT, -p, -f or standard input")
    if raw and system:
        raise click.UsageError("--system needs the chat template, --raw leaves it out")

    with loader.open(reference) as opened:
        system = opened.system if system is None else system
        if as_json:
            sampling["logprobs"] = logprobs
            _emit_records(opened, _ask(opened, text, system, raw, **sampling))
            return
        from edgeinfer.cli._answer import show_answer
        from edgeinfer.types import FinishReason

        last = show_answer(lambda **given: _ask(opened, text, system, raw, **given), **sampling)
        if last.finish_reason is FinishReason.CANCELLED:
            raise KeyboardInterrupt


def _gather(option: str | None, words: str, file: Path | None) -> str:
    from edgeinfer.cli._input import read_all
    from edgeinfer.errors import NotFoundError

    content = None
    if file is not None:
        try:
            content = file.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise NotFoundError(f"{file}: no such file") from None
        except UnicodeDecodeError:
            raise click.UsageError(f"{file}: not UTF-8 text") from None
    piped = None if sys.stdin.isatty() else sys.stdin.read()
    return read_all([option, words, content, piped])


def _ask(
    model: Model, text: str, system: str | None, raw: bool, **options: Any
) -> Iterator[TokenEvent]:
    if raw:
        return model.generate(text, stream=True, **options)
    messages = [{"role": "system", "content": system}] if system else []
    return model.chat([*messages, {"role": "user", "content": text}], stream=True, **options)


def _emit_records(model: Model, events: Iterator[TokenEvent]) -> None:
    """NDJSON: {"text", "token", "logprob", ...} a token, then {"done": true, ...}."""
    text = ""
    for event in events:
        text += event.text
        if event.finish_reason is None:
            ui.emit_json(_record(event))
            continue
        assert event.timings is not None
        timings = event.timings
        ui.emit_json(
            {
                "done": True,
                "model": model.reference,
                "backend": model.backend,
                "text": text,
                "finish_reason": event.finish_reason.value,
                "prompt_tokens": timings.prompt_tokens,
                "cached_tokens": timings.cached_tokens,
                "new_tokens": timings.new_tokens,
                "prefill_seconds": timings.prefill_seconds,
                "decode_seconds": timings.decode_seconds,
                "prefill_tokens_per_second": timings.prefill_tokens_per_second,
                "decode_tokens_per_second": timings.decode_tokens_per_second,
                "drafted_tokens": timings.drafted_tokens,
                "accepted_tokens": timings.accepted_tokens,
                "speedup": timings.speedup,
            }
        )


def _record(event: TokenEvent) -> dict[str, object]:
    record: dict[str, object] = {"text": event.text, "token": event.token, "logprob": event.logprob}
    if event.top_logprobs:
        record["top_logprobs"] = [
            # JSON has no -inf: an impossible token has no log-probability.
            {"token": t.token, "logprob": t.logprob if math.isfinite(t.logprob) else None}
            for t in event.top_logprobs
        ]
    return record
