"""What happens when the context is full: the answer ends, or goes on without the middle."""

from __future__ import annotations

import numpy as np
import pytest

from edgeinfer.backends import fake
from edgeinfer.backends.base import Slice
from edgeinfer.errors import UsageError
from edgeinfer.runtime.drafters import PromptLookup
from edgeinfer.runtime.generator import collect
from edgeinfer.runtime.sequence import SINKS, shifted
from edgeinfer.runtime.worth import Worth
from edgeinfer.types import FinishReason, SamplingParams
from support.fake_model import fake_model

CONTEXT = 40


ENDLESS = SamplingParams(temperature=0, max_tokens=100, logit_bias={fake.END: float("-inf")})


def likeliest(engine, text: list[int]) -> int:
    number = engine.open()
    logits = engine.step([Slice(number, text)])[0]
    engine.close(number)
    logits[fake.END] = -np.inf
    return int(logits.argmax())


def by_hand(engine, prompt: list[int], count: int) -> list[int]:
    """Greedy tokens, each of a whole new reading of what is left of the text."""
    text, said = list(prompt), []
    while len(said) < count:
        said.append(likeliest(engine, text))
        if len(text) == CONTEXT:
            text = [*text[:4], *text[-16:]]
        text.append(said[-1])
    return said


class Oracle:
    """Guesses two tokens right and then one wrong."""

    is_free = False

    def __init__(self, engine):
        self.engine = engine

    def propose(self, text, most):
        text = list(text)
        for _ in range(2):
            text.append(likeliest(self.engine, text) if len(text) < CONTEXT else 0)
        return [*text[-2:], 0][:most]

    def restart(self):
        pass

    def close(self):
        pass


class Always(Worth):
    def count(self):
        return 3


def test_the_first_tokens_and_the_last_half_are_kept():
    assert SINKS == 4
    assert shifted(range(100), 100) == [0, 1, 2, 3, *range(54, 100)]
    assert shifted(range(5), 5) == [0, 1, 2, 3, 4]


def test_by_default_a_full_context_ends_the_answer(rig):
    found = collect(rig(None, context=CONTEXT).events("Hello", max_tokens=100))

    assert found.finish_reason is FinishReason.CONTEXT


@pytest.mark.parametrize("guesses", [False, True])
@pytest.mark.parametrize("batch", [3, 16])
def test_a_shifted_text_goes_on_as_if_it_were_read_anew(rig, monkeypatch, guesses, batch):
    monkeypatch.setattr("edgeinfer.runtime.speculation.Worth", Always)
    made = rig(None, context=CONTEXT, batch=batch)
    sequence = made.sequence()
    drafter = (lambda: Oracle(made.engine)) if guesses else None

    found = collect(
        made.events("Hello", sequence=sequence, params=ENDLESS, shift=True, drafter=drafter)
    )

    assert found.finish_reason is FinishReason.LENGTH
    assert list(found.tokens) == by_hand(made.engine, made.task("Hello").prompt, 100)
    assert sequence.cached[:4] == made.task("Hello").prompt[:4]
    assert (found.timings.accepted_tokens > 30) == guesses


def test_lookup_forgets_the_text_that_was_shifted_away():
    lookup = PromptLookup()
    assert lookup.propose([1, 2, 3, 4, 1, 2, 3], 1) == [4]
    lookup.restart()
    assert lookup.propose([9, 8, 1, 2, 3], 1) == []


def test_a_model_shifts_when_asked_to():
    with fake_model("x" * 300, context=64) as model:
        stopped = model.generate("<|answer|>", temperature=0)
        shifted = model.generate("<|answer|>", temperature=0, overflow="shift", max_tokens=200)
        with pytest.raises(UsageError, match="'wrap'"):
            model.generate("x", overflow="wrap")

    assert stopped.finish_reason is FinishReason.CONTEXT
    assert len(shifted.tokens) == 200
