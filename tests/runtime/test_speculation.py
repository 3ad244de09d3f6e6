"""Speculation: faster or not, the text is the one that comes without it."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from edgeinfer.backends import fake
from edgeinfer.runtime.drafters import NGRAM, DraftModel, PromptLookup
from edgeinfer.runtime.generator import collect
from edgeinfer.runtime.scheduler import Scheduler
from edgeinfer.runtime.sequence import Sequence
from edgeinfer.runtime.speculation import Speculative
from edgeinfer.runtime.worth import Worth
from edgeinfer.types import SamplingParams
from support.fake_model import fake_model

REPEATING = "one two three one two three one two three one two three one two three one two three. "


class Scripted:
    """Guesses what it is told to; counts its closings."""

    closed = 0

    def __init__(self, guess, is_free=False):
        self.guess = guess
        self.is_free = is_free

    def propose(self, text, most):
        return list(self.guess(list(text)))[:most]

    def restart(self):
        pass

    def close(self):
        type(self).closed += 1


class Always(Worth):
    """Guesses from the first token on, whatever the clock says."""

    def count(self):
        return 12


@pytest.fixture
def always(monkeypatch):
    monkeypatch.setattr("edgeinfer.runtime.speculation.Worth", Always)


# ---- guessing --------------------------------------------------------------------------------


def test_lookup_finds_what_followed_the_last_tokens():
    lookup = PromptLookup()

    assert lookup.propose([1, 2, 3, 4, 5, 9, 1, 2, 3], 2) == [4, 5]
    assert lookup.propose([1, 2, 3, 4, 5, 9, 1, 2, 3, 7], 2) == []


def test_lookup_takes_the_latest_occurrence_and_runs_into_itself():
    lookup = PromptLookup()

    assert lookup.propose([1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3], 1) == [5]
    assert PromptLookup().propose([7, 8] * 3, 5) == [7, 8, 7, 8, 7]
    assert PromptLookup().propose([1] * (NGRAM + 1), 4) == [1, 1, 1, 1]


def test_a_text_without_repetition_has_no_guess():
    assert PromptLookup().propose(list(range(50)), 8) == []
    assert PromptLookup().propose([], 8) == []


# ---- the same text ---------------------------------------------------------------------------

GUESSES = {
    "right": lambda truth: lambda text: truth[len(text) :],
    "wrong": lambda truth: lambda text: [0] * 8,
    "half": lambda truth: lambda text: [*truth[len(text) :][:2], 0, 0],
    "sometimes": lambda truth: lambda text: truth[len(text) :] if len(text) % 3 else [],
}


@pytest.mark.parametrize("guess", GUESSES)
@pytest.mark.parametrize("is_free", [True, False])
@pytest.mark.parametrize("temperature", [0.0, 1.5])
@pytest.mark.parametrize("batch", [3, 16])
def test_every_guess_leads_to_the_same_tokens(rig, always, guess, is_free, temperature, batch):
    params = SamplingParams(
        temperature=temperature, seed=3, max_tokens=60, repeat_penalty=1.2, top_k=0
    )
    made = rig(None, batch=batch)
    plain = collect(made.events("Hello", params=params))
    truth = [*made.task("Hello").prompt, *plain.tokens]
    drafter = Scripted(GUESSES[guess](truth), is_free)

    found = collect(made.events("Hello", params=params, drafter=lambda: drafter))

    assert found.tokens == plain.tokens
    assert found.text == plain.text
    assert found.finish_reason == plain.finish_reason
    timings = found.timings
    assert timings.decode_steps == plain.timings.decode_steps
    assert 0 <= timings.accepted_tokens <= timings.drafted_tokens
    assert (timings.accepted_tokens > 0) == (guess != "wrong")


def test_right_guesses_save_steps(rig, always):
    made = rig(None)
    params = SamplingParams(temperature=0, max_tokens=60)
    plain = collect(made.events("Hello", params=params))
    truth = [*made.task("Hello").prompt, *plain.tokens]
    before = len(made.engine.steps)

    drafter = Scripted(lambda text: truth[len(text) :])
    collect(made.events("Hello", params=params, drafter=lambda: drafter))

    assert len(made.engine.steps) - before < 15


@pytest.mark.parametrize("stop", [1, 7, 20])
def test_the_sequence_holds_the_text_alone_when_it_ends(rig, always, stop):
    made = rig("one two three one two three one two three one two three")
    sequence = made.sequence()
    closed = Scripted.closed
    events = made.events(
        "Hello", sequence=sequence, drafter=lambda: Scripted(lambda text: [101, 101, 101])
    )
    said = [next(events).token for _ in range(stop)]
    events.close()

    assert Scripted.closed == closed + 1
    text = [*made.task("Hello").prompt, *said]
    assert sequence.cached == text[: len(sequence.cached)]
    again = collect(made.events("Hello", sequence=sequence))
    assert again.text == "one two three one two three one two three one two three"


def test_the_context_is_used_to_the_last_token(rig, always):
    plain = collect(rig(None, context=40).events("Hello"))
    for length in (1, 3, 30):
        drafter = Scripted(lambda text, n=length: [0] * n)
        found = collect(rig(None, context=40).events("Hello", drafter=lambda d=drafter: d))
        assert found.tokens == plain.tokens
        assert found.finish_reason == plain.finish_reason


# ---- the same distribution -------------------------------------------------------------------


def test_the_distribution_is_that_of_the_model(rig, always):
    """Pearson's chi-square of the second and third token over 3000 draws, against the model's."""
    made = rig(None, context=64)
    prompt = made.task("Hi").prompt
    draws: Counter[int] = Counter()
    guess = int(whole(made.engine, prompt)[-1].argmax())
    runs = 1500
    for seed in range(runs):
        params = SamplingParams(temperature=1.0, top_k=4, top_p=1, min_p=0, seed=seed, max_tokens=2)
        drafter = Scripted(lambda text: [guess])
        found = collect(made.events("Hi", params=params, drafter=lambda d=drafter: d))
        draws[found.tokens] += 1

    chances = {}
    first = kept(whole(made.engine, prompt)[-1])
    for one, p in first.items():
        for two, q in kept(whole(made.engine, [*prompt, one])[-1]).items():
            chances[one, two] = p * q
    statistic = sum((draws[pair] - runs * p) ** 2 / (runs * p) for pair, p in chances.items())

    assert sum(draws.values()) == sum(draws[pair] for pair in chances)
    assert len(chances) == 16
    assert statistic < 37.7  # chi-square of 15 degrees of freedom exceeds it once in a thousand


def whole(engine, tokens):
    number = engine.open()
    rows = engine.step([fake.Slice(number, tokens, wants_logits=1)])
    engine.close(number)
    return rows


def kept(logits):
    best = np.argsort(-logits)[:4]
    weights = np.exp(logits[best].astype(np.float64))
    return dict(zip(best.tolist(), (weights / weights.sum()).tolist(), strict=True))


# ---- the public face -------------------------------------------------------------------------


@pytest.fixture
def invariant(monkeypatch):
    """The fake engine keeps the promise anyhow; here it makes it."""
    monkeypatch.setattr(fake.FakeEngine, "batch_invariant", True, raising=False)


def test_a_model_guesses_by_itself_where_not_a_bit_can_change(always, invariant):
    with fake_model(REPEATING * 3) as model:
        plain = model.generate("<|answer|>", temperature=0, speculate="off")
        found = model.generate("<|answer|>", temperature=0)

    assert found.tokens == plain.tokens
    assert plain.timings.drafted_tokens == 0
    assert plain.timings.speedup == 1
    assert found.timings.drafted_tokens > 0


def test_elsewhere_it_looks_up_when_asked_to(always):
    with fake_model(REPEATING * 3) as model:
        plain = model.generate("<|answer|>", temperature=0)
        found = model.generate("<|answer|>", temperature=0, speculate="lookup")

    assert found.tokens == plain.tokens
    assert plain.timings.drafted_tokens == 0
    assert found.timings.drafted_tokens > 0


def test_the_time_between_two_steps_does_not_count(rig, monkeypatch):
    told = []

    class Telling(Always):
        def step(self, *, read, drawn, seconds):
            told.append(seconds)

    monkeypatch.setattr("edgeinfer.runtime.speculation.Worth", Telling)
    params = SamplingParams(temperature=0, max_tokens=5)
    for _ in rig(None).events("Hi", params=params, drafter=lambda: Scripted(lambda text: [0])):
        time.sleep(0.02)

    assert len(told) == 4
    assert max(told) < 0.02


def test_what_was_read_and_drawn_is_told(rig, monkeypatch):
    told = []

    class Telling(Always):
        def step(self, *, read, drawn, seconds):
            told.append((read, drawn))

    made = rig(None)
    params = SamplingParams(temperature=0, max_tokens=8)
    plain = collect(made.events("Hi", params=params))
    truth = [*made.task("Hi").prompt, *plain.tokens]
    guesses = iter([2, 0, 1, 9])

    def guess(text):
        right = truth[len(text) :][: next(guesses)]
        return [*right, *([0] if len(right) == 1 else [])]

    monkeypatch.setattr("edgeinfer.runtime.speculation.Worth", Telling)
    collect(made.events("Hi", params=params, drafter=lambda: Scripted(guess)))

    # After the first token: two right and one more; one alone; one right, one wrong; the rest.
    assert told == [(3, 3), (1, 1), (3, 2), (3, 1)]


def test_a_draft_model_guesses_what_it_would_say(always):
    with fake_model("The truth, the whole truth") as large, fake_model("The truth. ") as small:
        large.draft = small
        plain = large.generate("<|answer|>", temperature=0)
        found = large.generate("<|answer|>", temperature=0, speculate="draft")
        assert found.tokens == plain.tokens
        assert found.timings.accepted_tokens > 0
        guess = DraftModel(small).propose(list(b"x"), 4)

    assert len(guess) == 4


def test_what_cannot_be_is_refused():
    from edgeinfer.errors import UsageError

    with fake_model() as model:
        with pytest.raises(UsageError, match="draft"):
            model.generate("x", speculate="draft")
        with pytest.raises(UsageError, match="'magic'"):
            model.generate("x", speculate="magic")


def test_unread_guesses_are_no_part_of_the_text(always):
    engine = fake.FakeBackend().load(None, replace(fake_model().plan))
    sequence = Sequence(engine, 64)
    sequence.feed([1, 2, 3])
    reader = Speculative(Scheduler(engine, 8), sequence, Scripted(lambda text: [9, 9]))
    reader.read()
    reader.push(4)
    assert sequence.pending == [4, 9, 9]
    assert reader.room == 60
    reader.finish()
    assert (sequence.cached, sequence.pending) == ([1, 2, 3], [])
