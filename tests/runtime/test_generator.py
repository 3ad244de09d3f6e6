"""Generating: events, ends, stop strings, cancelling, timings."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from edgeinfer.backends import fake
from edgeinfer.errors import ContextFullError, EdgeInferError, UsageError
from edgeinfer.runtime.generator import collect, generate
from edgeinfer.types import FinishReason, SamplingParams


def test_the_text_is_the_reply_and_the_end_token_ends_it(rig):
    completion = collect(rig("Hello, world.").events("hi"))

    assert completion.text == "Hello, world."
    assert completion.tokens == tuple(b"Hello, world.")
    assert completion.finish_reason is FinishReason.STOP


def test_each_token_is_an_event_and_a_last_one_tells_the_reason(rig):
    events = list(rig("abc").events("hi"))

    assert [event.text for event in events] == ["a", "b", "c", ""]
    assert [event.finish_reason for event in events] == [None, None, None, FinishReason.STOP]
    assert [event.timings is None for event in events] == [True, True, True, False]
    assert all(event.logprob <= 0 for event in events[:-1])


@pytest.mark.parametrize("max_tokens", [0, 1, 5])
def test_max_tokens(rig, max_tokens):
    completion = collect(rig().events("hi", max_tokens=max_tokens))

    assert completion.text == "Hello, world."[:max_tokens]
    assert completion.finish_reason is FinishReason.LENGTH


def test_half_a_character_is_never_sent(rig):
    events = list(rig("aé😀").events("hi"))

    assert [event.text for event in events] == ["a", "", "é", "", "", "", "😀", ""]


def test_a_character_cut_by_max_tokens_is_replaced(rig):
    assert collect(rig("é").events("hi", max_tokens=1)).text == "\ufffd"


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        ([", w"], "Hello"),
        (["world", "lo"], "Hel"),
        (["ello, world."], "H"),
        (["H"], ""),
        (["xyz", "world!"], "Hello, world."),
    ],
)
def test_a_stop_string_ends_the_text_and_is_no_part_of_it(rig, stop, text):
    events = list(rig().events("hi", stop=stop))

    assert "".join(event.text for event in events) == text
    assert events[-1].finish_reason is FinishReason.STOP


def test_text_that_may_begin_a_stop_string_waits(rig):
    texts = [event.text for event in rig("a<|b<|end|>c").events("hi", stop=["<|end|>"])]

    assert texts[:4] == ["a", "", "", "<|b"]
    assert "".join(texts) == "a<|b"


def test_held_back_text_comes_at_the_end(rig):
    assert collect(rig("say <|").events("hi", stop=["<|end|>"])).text == "say <|"


def test_a_full_context_ends_the_answer_and_says_so(rig):
    completion = collect(rig("x" * 100, context=10).events("hi"))

    assert completion.finish_reason is FinishReason.CONTEXT
    # START h i ANSWER, six x in the cache, and the one drawn from the last of them.
    assert completion.text == "x" * 7


def test_a_prompt_beyond_the_context_is_an_error_and_nothing_is_cut(rig):
    with pytest.raises(ContextFullError, match="12 tokens, the context holds 10"):
        list(rig(context=10).events("0123456789"))


def test_an_empty_prompt_is_an_error(rig):
    tools = rig()
    task = replace(tools.task("hi"), prompt=[])

    with pytest.raises(UsageError, match="prompt"):
        list(generate(tools.scheduler, tools.sequence(), task))


def test_a_senseless_parameter_is_an_error_before_anything_runs(rig):
    tools = rig()

    with pytest.raises(UsageError, match="top_p"):
        list(tools.events("hi", params=SamplingParams(top_p=7)))
    assert tools.engine.steps == []


def test_the_prompt_is_read_in_chunks_and_told(rig):
    tools = rig(batch=16)
    told = []

    list(tools.events("x" * 40, on_prefill=lambda done, total: told.append((done, total))))

    assert told == [(16, 42), (32, 42), (42, 42)]
    assert [len(batch[0].tokens) for batch in tools.engine.steps[:4]] == [16, 16, 10, 1]
    assert [batch[0].wants_logits for batch in tools.engine.steps[:4]] == [0, 0, 1, 1]


def test_chunked_and_whole_prefill_draw_the_same(rig):
    params = SamplingParams(seed=5, temperature=2.0, max_tokens=30)

    texts = {
        collect(rig(None, batch=batch).events("x" * 40, params=params)).tokens
        for batch in (1, 7, 42, 512)
    }

    assert len(texts) == 1
    assert len(texts.pop()) == 30


def test_the_second_prompt_reads_only_what_is_new(rig):
    tools = rig("ok")
    sequence = tools.sequence()
    list(tools.events("first", sequence))

    timings = list(tools.events("first and second", sequence))[-1].timings

    assert timings.prompt_tokens == len("first and second") + 2
    assert timings.cached_tokens == len("first") + 1  # up to ANSWER, which comes later now


def test_the_same_prompt_again_reads_one_token_for_its_logits(rig):
    tools = rig("ok")
    sequence = tools.sequence()
    first = collect(tools.events("again", sequence))

    second = collect(tools.events("again", sequence))

    assert second.text == first.text
    assert second.timings.cached_tokens == second.timings.prompt_tokens - 1


def test_closing_the_stream_cancels_and_the_sequence_goes_on(rig):
    tools = rig()
    sequence = tools.sequence()
    stream = tools.events("hi", sequence)
    assert [next(stream).text for _ in range(3)] == ["H", "e", "l"]
    stream.close()
    steps = len(tools.engine.steps)

    completion = collect(tools.events("hi there", sequence))

    assert steps == 3
    assert completion.text == "Hello, world."


def test_cancelling_ends_with_a_reason_and_keeps_the_text(rig):
    stop = threading.Event()
    stream = rig().events("hi", is_cancelled=stop.is_set)
    text = next(stream).text
    stop.set()

    last = list(stream)[-1]

    assert text == "H"
    assert last.finish_reason is FinishReason.CANCELLED
    assert last.timings.new_tokens == 1


def test_a_long_prompt_can_be_cancelled_between_chunks(rig):
    tools = rig(batch=4)
    sequence = tools.sequence()
    seen = []

    events = list(
        tools.events(
            "x" * 40,
            sequence,
            on_prefill=lambda done, total: seen.append(done),
            is_cancelled=lambda: len(seen) == 2,
        )
    )

    assert [event.finish_reason for event in events] == [FinishReason.CANCELLED]
    assert sequence.cached == [fake.START, *b"x" * 7]
    assert collect(tools.events("x" * 40, sequence)).text == "Hello, world."


def test_an_interrupted_step_does_not_spoil_the_sequence(rig, monkeypatch):
    """The engine read a chunk, but the interrupt came before that was noted."""
    tools = rig(batch=8)
    sequence = tools.sequence()
    step = tools.engine.step

    def interrupted(batch):
        step(batch)
        raise KeyboardInterrupt

    monkeypatch.setattr(tools.engine, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(tools.events("some long prompt", sequence))
    monkeypatch.undo()

    assert collect(tools.events("another prompt", sequence)).text == "Hello, world."


def test_logits_that_are_no_numbers_end_in_an_error(rig, monkeypatch):
    tools = rig()
    monkeypatch.setattr(
        tools.engine, "step", lambda batch: np.full((1, fake.VOCAB), np.nan, np.float32)
    )

    with pytest.raises(EdgeInferError, match="cannot be sampled"):
        list(tools.events("hi"))


def test_the_penalties_see_the_prompt(rig):
    """A token that is far the likeliest is not drawn, because it stands in the prompt."""
    params = SamplingParams(
        temperature=0, logit_bias={ord("A"): 50.0}, presence_penalty=100, max_tokens=1
    )

    assert collect(rig(None).events("B", params=params)).tokens == (ord("A"),)
    assert collect(rig(None).events("A", params=params)).tokens != (ord("A"),)


def test_a_text_that_changed_is_read_from_where_it_differs(rig):
    """The engine's logits hang on every token that it has read."""
    params = SamplingParams(seed=5, temperature=2.0, max_tokens=10)
    tools = rig(None)
    sequence = tools.sequence()
    list(tools.events("the same beginning, one end", sequence, params=params))

    again = collect(tools.events("the same beginning, two", sequence, params=params))

    assert again.timings.cached_tokens == 1 + len("the same beginning, ")
    assert len(again.tokens) == 10
    assert (
        again.tokens == collect(rig(None).events("the same beginning, two", params=params)).tokens
    )


def test_timings_add_up(rig):
    tools = rig("abc", seconds_per_token=0.002)

    timings = list(tools.events("0123456789"))[-1].timings

    assert (timings.prompt_tokens, timings.new_tokens, timings.decode_steps) == (12, 3, 3)
    assert timings.prefill_seconds >= 12 * 0.002
    assert timings.decode_seconds >= 3 * 0.002
    assert 0 < timings.decode_tokens_per_second <= 500
    assert 0 < timings.prefill_tokens_per_second <= 500
