"""Puts an answer on the screen as it comes: prefill progress, text, statistics, Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from edgeinfer.cli import ui
from edgeinfer.types import FinishReason, Timings, TokenEvent

# Calls the model with on_prefill and is_cancelled.
Ask = Callable[..., Iterator[TokenEvent]]

_SLOW_PREFILL = 512  # tokens; fewer are read before a bar would be seen


class Interrupts:
    """The first Ctrl-C asks to stop, the second one ends the program."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    @property
    def is_asked(self) -> bool:
        """True after the first Ctrl-C."""
        return self._asked.is_set()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watches for Ctrl-C meanwhile."""

        def on_interrupt(number: int, frame: FrameType | None) -> None:
            if self._asked.is_set():
                raise KeyboardInterrupt
            self._asked.set()

        before = signal.signal(signal.SIGINT, on_interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def show_answer(ask: Ask, **options: Any) -> TokenEvent:
    """Streams an answer to stdout and returns its last event.

    Args:
        ask: returns the events; is given ``on_prefill``, ``is_cancelled`` and the options.
        options: passed on.
    """
    interrupts = Interrupts()
    ends_line = True
    last: TokenEvent | None = None
    with interrupts.watched(), _prefill_bar() as on_prefill, ui.stream() as show:
        events = ask(on_prefill=on_prefill, is_cancelled=lambda: interrupts.is_asked, **options)
        for event in events:
            if event.text:
                show(event.text)
                ends_line = event.text.endswith("\n")
            last = event
    assert last is not None and last.timings is not None
    if not ends_line:
        ui.emit()
    if last.finish_reason is FinishReason.CONTEXT:
        ui.warn("the context is full, the answer ends here; -c asks for a longer one")
    elif last.finish_reason is FinishReason.LENGTH:
        ui.detail(f"stopped after {last.timings.new_tokens} tokens (-n)")
    ui.note(stats_line(last.timings))
    return last


@contextmanager
def _prefill_bar() -> Iterator[Callable[[int, int], None]]:
    """A bar for prompts that take long to read; gone when the answer begins."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        bar: ui.Progress | None = None

        def show(done: int, total: int) -> None:
            nonlocal bar
            if bar is None and total >= _SLOW_PREFILL and done < total:
                bar = stack.enter_context(ui.progress("reading the prompt", total, "tok"))
            if bar is not None:
                bar.to(done)
            if done == total:
                stack.close()

        yield show


def stats_line(timings: Timings) -> str:
    """One line: what was read and written, and how fast."""
    cached = f" ({timings.cached_tokens} cached)" if timings.cached_tokens else ""
    guessed = ""
    if timings.drafted_tokens:
        guessed = (
            f" | guessed: {timings.accepted_tokens} of {timings.drafted_tokens} right, "
            f"{timings.speedup:.2f}x"
        )
    return (
        f"[prompt: {timings.prompt_tokens} tokens{cached} "
        f"{timings.prefill_tokens_per_second:.1f} tok/s | "
        f"answer: {timings.new_tokens} tokens {timings.decode_tokens_per_second:.1f} tok/s"
        f"{guessed}]"
    )
