"""A running state: how far back it goes, and that what is read again is what was read."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeinfer.backends.base import Slice
from edgeinfer.runtime.scheduler import Scheduler
from edgeinfer.runtime.sequence import Sequence
from edgeinfer.runtime.speculation import Plain, Reader, Speculative
from support import tiny
from support.ours import OurEngine, our_engine

CONTEXT = 2048
MODELS = {model.arch.name: model for model in tiny.MODELS if model.arch.recurrent}
Rows = NDArray[np.float32]


@pytest.fixture(scope="module", params=MODELS.values(), ids=str)
def ours(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OurEngine]:
    path = tiny.write_gguf(request.param.name, tmp_path_factory.mktemp("recurrent"))
    with our_engine(path, context=CONTEXT) as engine:
        yield engine


@pytest.fixture(scope="module")
def text(ours: OurEngine) -> list[int]:
    random = np.random.default_rng(3)
    return [int(t) for t in random.integers(0, ours.engine.config.vocab_size, 1200)]


@pytest.fixture(scope="module")
def whole(ours: OurEngine, text: list[int]) -> Rows:
    return ours.logits(text)


def read(ours: OurEngine, sequence: int, tokens: list[int], wanted: int = 0) -> Rows:
    return ours.engine.step([Slice(sequence, tokens, wanted)])


def test_any_length_can_be_gone_back_to_and_read_on_from(
    ours: OurEngine, text: list[int], whole: Rows
) -> None:
    random = np.random.default_rng(4)
    engine, sequence = ours.engine, ours.engine.open()
    length = 0
    for _ in range(60):
        count = int(random.choice([1, 1, 2, 5, 40, 170]))
        count = min(count, len(text) - length)
        if count:
            wanted = min(count, int(random.integers(0, 4)))
            rows = read(ours, sequence, text[length : length + count], wanted)
            length += count
            np.testing.assert_array_equal(rows, whole[length - wanted : length])
        wish = max(0, length - int(random.choice([0, 1, 2, 7, 60, 300])))
        left = engine.trim(sequence, wish)
        assert 0 <= left <= wish
        length = left
    engine.close(sequence)


def test_a_prompt_that_is_asked_for_again_is_kept_but_for_its_last_token(
    ours: OurEngine, text: list[int]
) -> None:
    engine, sequence = ours.engine, ours.engine.open()
    read(ours, sequence, text[:90], 1)
    for token in text[90:130]:  # an answer
        read(ours, sequence, [token], 1)

    assert engine.trim(sequence, 89) == 89
    engine.close(sequence)


def test_a_guess_that_is_wrong_is_forgotten_alone(ours: OurEngine, text: list[int]) -> None:
    engine, sequence = ours.engine, ours.engine.open()
    read(ours, sequence, text[:90], 1)
    read(ours, sequence, text[90:95], 5)  # a token that is sure and four guesses

    assert engine.trim(sequence, 93) == 91  # two of them were right and are read again
    engine.close(sequence)


def test_a_long_text_and_a_long_answer_are_kept_up_to_places_on_the_way(
    ours: OurEngine, text: list[int]
) -> None:
    engine, sequence = ours.engine, ours.engine.open()
    for start in range(0, 300, 100):
        read(ours, sequence, text[start : start + 100], 0)
    assert engine.trim(sequence, 250) == 200

    for token in text[200:530]:
        read(ours, sequence, [token], 1)
    assert engine.trim(sequence, 520) == 512
    engine.close(sequence)


def test_earlier_states_are_kept_apart_the_farther_the_longer_ago(
    ours: OurEngine, text: list[int]
) -> None:
    """Few are kept, but of a long conversation not only the last ones."""
    engine, sequence = ours.engine, ours.engine.open()
    for start in range(0, 1000, 10):
        read(ours, sequence, text[start : start + 10], 0)
    lengths = []
    left = 1000
    while left := engine.trim(sequence, left - 1):
        lengths.append(left)

    assert lengths[0] == 990
    assert lengths[-1] <= 500
    engine.close(sequence)


def test_another_sequence_is_not_touched(ours: OurEngine, text: list[int], whole: Rows) -> None:
    engine = ours.engine
    one, other = engine.open(), engine.open()
    engine.step([Slice(one, text[:60], 0), Slice(other, text[:33], 0)])
    engine.trim(one, 10)
    rows = engine.step([Slice(other, text[33:40], 7)])

    np.testing.assert_array_equal(rows, whole[33:40])
    engine.close(one)
    engine.close(other)


def test_a_state_is_restored_and_goes_on(ours: OurEngine, text: list[int], whole: Rows) -> None:
    engine, sequence = ours.engine, ours.engine.open()
    read(ours, sequence, text[:70], 0)
    state = bytes(engine.save_state(sequence))
    engine.close(sequence)

    sequence = engine.open()
    engine.restore_state(sequence, state, 70)
    np.testing.assert_array_equal(read(ours, sequence, text[70:80], 10), whole[70:80])
    assert engine.trim(sequence, 75) == 71  # the first of which outputs were wanted
    assert engine.trim(sequence, 70) == 0  # of which nothing is known any more
    engine.close(sequence)


class Knowing:
    """Guesses four tokens of a text that it knows, of which each third is wrong."""

    is_free = False

    def __init__(self, known: list[int]) -> None:
        self.known = known

    def propose(self, text: list[int], most: int) -> list[int]:
        ahead = range(len(text), min(len(text) + min(most, 4), len(self.known)))
        return [self.known[i] if i % 3 else 0 for i in ahead]

    def restart(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_guessing_ahead_does_not_change_the_text(
    ours: OurEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeinfer.runtime.speculation.Worth.count", lambda self: 4)
    scheduler, prompt = Scheduler(ours.engine, 64), [1, 2, 3, 4] * 20

    def answer(sequence: Sequence, reader: Reader) -> list[int]:
        tokens: list[int] = []
        for _ in range(80):
            tokens.append(int(reader.read().argmax()))
            reader.push(tokens[-1])
        reader.finish()
        return tokens

    plain = Sequence(ours.engine, 256)
    plain.feed(prompt)
    expected = answer(plain, Plain(scheduler, plain))
    sequence = Sequence(ours.engine, 256)
    sequence.feed(prompt)
    reader = Speculative(scheduler, sequence, Knowing(prompt + expected))

    assert answer(sequence, reader) == expected
    assert 0 < reader.accepted < reader.drafted
    # The sequence knows what it has read, and can be cut where the engine could not.
    assert sequence.feed(prompt + expected[:40]) <= 119
    assert int(scheduler.read(sequence).argmax()) == expected[40]
    plain.close()
    sequence.close()
