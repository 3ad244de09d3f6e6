"""The loop: schedule -> step -> sample -> decode -> TokenEvent."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from edgeinfer.runtime.drafters import Drafter
from edgeinfer.runtime.sampler import NativeSampler, accept_all, check_params
from edgeinfer.runtime.scheduler import OnPrefill, Scheduler
from edgeinfer.runtime.sequence import Sequence as TextSequence
from edgeinfer.runtime.speculation import Plain, Reader, Speculative
from edgeinfer.runtime.stop import StopStrings
from edgeinfer.types import (
    Completion,
    FinishReason,
    SamplingParams,
    Timings,
    TokenEvent,
    TokenLogprob,
)


class Decoder(Protocol):
    """Turns tokens into text, whole characters only; ``tokenizer.StreamDecoder`` is one."""

    def push(self, token: int) -> str:
        """Adds a token; returns the characters that are complete."""

    def finish(self) -> str:
        """Returns what is left at the end of the text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What to generate.

    ``on_prefill`` is told (tokens read, tokens to read) after each chunk of the prompt;
    ``on_step`` is told of each step, of the prompt too; ``is_cancelled`` is asked after each
    step, and may be answered from any thread;
    ``drafter`` makes one that guesses tokens ahead; ``shift`` goes on when the context is
    full, without the middle of the text, where it would end otherwise.
    """

    prompt: Sequence[int]
    params: SamplingParams
    decoder: Decoder
    end_tokens: frozenset[int] = frozenset()
    on_prefill: OnPrefill | None = None
    on_step: Callable[[], None] = lambda: None
    is_cancelled: Callable[[], bool] = lambda: False
    drafter: Callable[[], Drafter] | None = None
    shift: bool = False


class _Cancelled(Exception):
    """Leaves a prefill between two chunks."""


class _Clock:
    """Adds up the timings of one generation."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.prefilled: float | None = None
        self.last = self.started
        self.began = self.started
        self.steps = array("d")  # seconds of each after the prefill

    def begin(self) -> None:
        """A step begins; what the reader of the stream did until now does not count as one."""
        self.began = time.perf_counter()

    def tick(self) -> None:
        """Logits are there: of the prompt the first time, then of one more token."""
        self.last = time.perf_counter()
        if self.prefilled is None:
            self.prefilled = self.last
        else:
            self.steps.append(self.last - self.began)

    def timings(self, prompt_tokens: int, cached_tokens: int, new_tokens: int) -> Timings:
        """What the generation has cost so far."""
        prefilled = time.perf_counter() if self.prefilled is None else self.prefilled
        return Timings(
            prompt_tokens=prompt_tokens,
            cached_tokens=cached_tokens,
            new_tokens=new_tokens,
            decode_steps=len(self.steps),
            step_seconds=sorted(self.steps)[len(self.steps) // 2] if self.steps else 0.0,
            prefill_seconds=prefilled - self.started,
            decode_seconds=max(self.last - prefilled, 0.0),
        )


def generate(scheduler: Scheduler, sequence: TextSequence, task: Task) -> Iterator[TokenEvent]:
    """Continues a prompt, one event a token and a last one with the finish reason.

    The end token and stop strings are not part of the text. Text that may begin a stop
    string is held back until it is clear. Closing the iterator cancels; the sequence keeps
    what it has read.

    Raises:
        UsageError: a parameter makes no sense, or the prompt is empty.
        ContextFullError: the prompt does not fit.
    """
    vocab_size = scheduler.engine.config.vocab_size
    check_params(task.params, vocab_size)
    clock = _Clock()
    cached = sequence.feed(task.prompt)
    sampler = NativeSampler(task.params, vocab_size)
    accept_all(sampler, task.prompt)
    stops = StopStrings(task.params.stop)
    text: Reader = (
        Plain(scheduler, sequence)
        if task.drafter is None
        else Speculative(scheduler, sequence, task.drafter())
    )
    count = 0

    def after_chunk() -> None:
        if task.on_prefill is not None and clock.prefilled is None:
            done = len(task.prompt) - cached - len(sequence.pending)
            task.on_prefill(done, len(task.prompt) - cached)
        task.on_step()
        if task.is_cancelled():
            raise _Cancelled

    try:
        while True:
            clock.begin()
            logits = text.read(after_chunk)
            clock.tick()
            if count == task.params.max_tokens:  # only so for max_tokens=0
                reason = FinishReason.LENGTH
                break
            draw = sampler.sample(logits)
            if draw.token in task.end_tokens:
                reason = FinishReason.STOP
                break
            sampler.accept(draw.token)
            count += 1
            yield TokenEvent(
                text=stops.push(task.decoder.push(draw.token)),
                token=draw.token,
                logprob=draw.logprob,
                top_logprobs=draw.top,
            )
            if stops.stopped:
                reason = FinishReason.STOP
                break
            if count == task.params.max_tokens:
                reason = FinishReason.LENGTH
                break
            if task.is_cancelled():
                reason = FinishReason.CANCELLED
                break
            if text.room == 0:
                if not task.shift:
                    reason = FinishReason.CONTEXT
                    break
                text.shift()
            text.push(draw.token)
    except _Cancelled:
        reason = FinishReason.CANCELLED
    finally:
        text.finish()
    rest = "" if stops.stopped else stops.push(task.decoder.finish()) + stops.finish()
    yield TokenEvent(
        text=rest,
        # The end of the decoder's text may complete a stop string.
        finish_reason=FinishReason.STOP if stops.stopped else reason,
        timings=replace(
            clock.timings(len(task.prompt), cached, count),
            drafted_tokens=text.drafted,
            accepted_tokens=text.accepted,
            speedup=text.speedup,
        ),
    )


def collect(events: Iterator[TokenEvent]) -> Completion:
    """Gathers a whole stream."""
    gathered = list(events)
    last = gathered[-1]
    assert last.finish_reason is not None and last.timings is not None
    return Completion(
        text="".join(event.text for event in gathered),
        tokens=tuple(event.token for event in gathered if event.token is not None),
        finish_reason=last.finish_reason,
        timings=last.timings,
        logprobs=tuple(
            TokenLogprob(token=event.token, logprob=event.logprob)
            for event in gathered
            if event.token is not None and event.logprob is not None
        ),
    )
