"""What every engine promises, checked of every installed backend.

A check is a function of an engine. The deliberately broken engines at the end show that
each check can fail.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeinfer.backends import fake, registry
from edgeinfer.backends.base import Engine, ModelFiles, Slice
from edgeinfer.device.detect import detect
from edgeinfer.errors import ClosedError, ContextFullError
from edgeinfer.planner.plan import MemoryPlan

CONTEXT = 64
TEXT = [7, 3, 11, 7, 100, 42, 3, 3, 9, 250, 17, 64, 5, 1, 2, 99]
OTHER = [8, 8, 1, 60, 12]


def read(engine: Engine, *slices: tuple[int, list[int], int]) -> np.ndarray:
    return engine.step([Slice(*part) for part in slices])


def whole(engine: Engine, tokens: list[int]) -> np.ndarray:
    """The logits after each token, read in one piece in a sequence of its own."""
    number = engine.open()
    logits = read(engine, (number, tokens, len(tokens)))
    engine.close(number)
    return logits


def same(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.shape == expected.shape
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.ptp(expected) if len(got) else 0)


# ---- the contract ----------------------------------------------------------------------------


def check_logits_have_a_row_a_wanted_token(engine: Engine) -> None:
    expected = whole(engine, TEXT)
    assert expected.shape == (len(TEXT), engine.config.vocab_size)
    for wanted in (0, 1, 3):
        number = engine.open()
        same(read(engine, (number, TEXT, wanted)), expected[len(TEXT) - wanted :])


def check_chunks_equal_the_whole(engine: Engine) -> None:
    expected = whole(engine, TEXT)
    for size in (1, 3, 5):
        number = engine.open()
        rows = [
            read(engine, (number, TEXT[at : at + size], len(TEXT[at : at + size])))
            for at in range(0, len(TEXT), size)
        ]
        same(np.concatenate(rows), expected)


def check_runs_are_equal_to_the_bit(engine: Engine) -> None:
    np.testing.assert_array_equal(whole(engine, TEXT), whole(engine, TEXT))


def check_sequences_do_not_disturb_each_other(engine: Engine) -> None:
    first, second = engine.open(), engine.open()
    assert first != second
    one = read(engine, (first, TEXT[:5], 1), (second, OTHER[:2], 2))
    two = read(engine, (second, OTHER[2:], 3), (first, TEXT[5:], 1))

    text, other = whole(engine, TEXT), whole(engine, OTHER)
    same(one, np.concatenate([text[4:5], other[:2]]))
    same(two, np.concatenate([other[2:], text[-1:]]))


def check_trim_forgets_the_rest(engine: Engine) -> None:
    number = engine.open()
    read(engine, (number, TEXT[:4] + OTHER, 0))
    engine.trim(number, 4)
    same(read(engine, (number, TEXT[4:], len(TEXT) - 4)), whole(engine, TEXT)[4:])
    engine.trim(number, 0)
    same(read(engine, (number, OTHER, len(OTHER))), whole(engine, OTHER))


def check_a_full_context_changes_nothing(engine: Engine) -> None:
    first, second = engine.open(), engine.open()
    read(engine, (first, TEXT[:3], 0), (second, [1] * (CONTEXT - 1), 0))

    with pytest.raises(ContextFullError):
        read(engine, (first, OTHER, 1), (second, [1, 1], 1))

    same(read(engine, (first, TEXT[3:], len(TEXT) - 3)), whole(engine, TEXT)[3:])
    assert len(read(engine, (second, [1], 1))) == 1  # one more does fit


def check_a_closed_sequence_says_so(engine: Engine) -> None:
    number, other = engine.open(), engine.open()
    read(engine, (number, TEXT[:3], 0))
    engine.close(number)

    with pytest.raises(ClosedError):
        read(engine, (number, [1], 1))
    with pytest.raises(ClosedError):
        engine.trim(number, 0)
    same(read(engine, (other, OTHER, len(OTHER))), whole(engine, OTHER))
    assert engine.open() != number  # or an old number would read another's text


def check_a_shut_engine_says_so(engine: Engine) -> None:
    number = engine.open()
    engine.shutdown()

    for use in (
        engine.open,
        lambda: read(engine, (number, [1], 1)),
        lambda: engine.trim(number, 0),
        lambda: engine.close(number),
    ):
        with pytest.raises(ClosedError):
            use()


CHECKS = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_")
}


# ---- the backends ----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a few layers with a sliding window, as GGUF."""
    from edgeinfer_converters.gguf import convert
    from support import tiny

    folder = tmp_path_factory.mktemp("tiny")
    chosen = next(model for model in tiny.MODELS if model.name == "mistral-gqa64-window")
    convert(tiny.write(chosen, folder / "hf"), folder / "tiny.gguf", quant="f32")
    return folder / "tiny.gguf"


def plan(backend: str) -> MemoryPlan:
    return MemoryPlan(
        backend=backend,
        quant="f32",
        context=CONTEXT,
        threads=2,
        batch=16,
        kv_type="f32",
        weights_bytes=0,
        kv_bytes=0,
        scratch_bytes=0,
        runtime_bytes=0,
        budget_bytes=1,
    )


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """A loaded engine of the backend that the test is parametrised by."""
    name = request.param
    backend = fake.FakeBackend() if name == "fake" else registry.choose(name, "gguf", detect())
    path = Path() if name == "fake" else request.getfixturevalue("tiny_gguf")
    loaded = backend.load(ModelFiles(path=path, format=next(iter(backend.formats))), plan(name))
    yield loaded
    loaded.shutdown()


BACKENDS = ["fake", *registry.installed()]


@pytest.mark.parametrize("engine", BACKENDS, indirect=True)
@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_every_backend_keeps_the_contract(check: Callable[[Engine], None], engine: Engine) -> None:
    check(engine)


# ---- engines that break it -------------------------------------------------------------------


class NoMemory(fake.FakeEngine):
    """Forgets what it read before the step."""

    def step(self, batch):
        for part in batch:
            self.trim(part.sequence, 0)
        return super().step(batch)


class OneMemory(fake.FakeEngine):
    """Has one text for all sequences."""

    def _text(self, sequence):
        super()._text(sequence)
        return next(iter(self._live().values()))


class NoTrim(fake.FakeEngine):
    """Keeps everything."""

    def trim(self, sequence, length):
        self._text(sequence)


class HalfFull(fake.FakeEngine):
    """Has read the first slice when it notices that the second does not fit."""

    def step(self, batch):
        return np.concatenate([super(HalfFull, self).step([part]) for part in batch])


class ReusesNumbers(fake.FakeEngine):
    """Gives the number of a closed sequence to the next one."""

    def open(self):
        self._opened = len(self._live())
        return super().open()


class Dice(fake.FakeEngine):
    """Never the same twice, by a hair."""

    counter = itertools.count()

    def step(self, batch):
        return super().step(batch) + np.float32(1e-6) * next(self.counter)


class LastRows(fake.FakeEngine):
    """Returns the rows in the wrong order."""

    def step(self, batch):
        return super().step(batch)[::-1]


class Immortal(fake.FakeEngine):
    """Goes on after shutdown."""

    def shutdown(self):
        pass


BROKEN = [
    (NoMemory, check_chunks_equal_the_whole),
    (OneMemory, check_sequences_do_not_disturb_each_other),
    (NoTrim, check_trim_forgets_the_rest),
    (HalfFull, check_a_full_context_changes_nothing),
    (ReusesNumbers, check_a_closed_sequence_says_so),
    (Dice, check_runs_are_equal_to_the_bit),
    (LastRows, check_logits_have_a_row_a_wanted_token),
    (Immortal, check_a_shut_engine_says_so),
]


@pytest.mark.parametrize(("broken", "check"), BROKEN, ids=lambda value: value.__name__)
def test_a_broken_engine_is_caught(broken, check):
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(broken(fake.FakeBackend(), CONTEXT))


def test_every_check_can_fail():
    assert {check for _, check in BROKEN} == set(CHECKS.values())
