"""Text from an engine that writes by itself: its passages as the events of a generation."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

from edgeinfer.backends.base import Writer
from edgeinfer.runtime.generator import Task
from edgeinfer.runtime.stop import StopStrings
from edgeinfer.types import FinishReason, Timings, TokenEvent


def write(engine: Writer, task: Task) -> Iterator[TokenEvent]:
    """Continues a prompt, one event a passage and a last one with the finish reason.

    Tokens have no numbers, and those of ``Timings`` are as the engine counts them.

    Args:
        engine: writes.
        task: of which drafters and shifting are of no use here.

    Raises:
        EdgeInferError: as ``Writer.write``.
    """
    started = time.perf_counter()
    first = last = started
    stops = StopStrings(task.params.stop)
    reason, tokens = FinishReason.LENGTH, 0
    if task.params.max_tokens != 0:
        with closing(engine.write(task.prompt, task.params)) as passages:
            for passage in passages:
                last = time.perf_counter()
                first = last if first == started else first
                task.on_step()
                tokens = passage.tokens or tokens + 1  # about, where it is broken off
                if passage.ended is not None:
                    reason = passage.ended
                elif text := stops.push(passage.text):
                    yield TokenEvent(text=text)
                if stops.stopped or task.is_cancelled():
                    reason = FinishReason.STOP if stops.stopped else FinishReason.CANCELLED
                    break
    if reason is FinishReason.LENGTH and tokens != task.params.max_tokens:
        reason = FinishReason.CONTEXT
    yield TokenEvent(
        text="" if stops.stopped else stops.finish(),
        finish_reason=reason,
        timings=Timings(
            prompt_tokens=len(task.prompt),
            new_tokens=tokens,
            decode_steps=max(tokens - 1, 0),
            prefill_seconds=first - started,
            decode_seconds=last - first,
        ),
    )
