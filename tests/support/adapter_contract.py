"""What every engine with adapters promises; a check gets one, and two adapters of its model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeinfer.backends.base import Adaptable, AdapterUse, Embedder, Engine, Slice
from edgeinfer.errors import ClosedError, CorruptFileError, NotFoundError
from support.contract import OTHER, TEXT, read, same

Check = Callable[[Engine, Path, Path], None]


def adaptable(engine: Engine) -> Adaptable:
    assert isinstance(engine, Adaptable)
    return engine


def opened(engine: Engine, *uses: AdapterUse) -> int:
    number = engine.open()
    adaptable(engine).set_adapters(number, uses)
    return number


def whole(engine: Engine, tokens: list[int], *uses: AdapterUse) -> np.ndarray:
    """The logits after each token, computed with adapters in a sequence of its own."""
    number = opened(engine, *uses)
    logits = read(engine, (number, tokens, len(tokens)))
    engine.close(number)
    return logits


def differ(one: np.ndarray, other: np.ndarray) -> None:
    assert np.abs(one - other).max() > 0.02 * np.ptp(one)


def check_sequences_of_a_step_have_their_own(engine: Engine, one: Path, two: Path) -> None:
    first, second = (adaptable(engine).add_adapter(path) for path in (one, two))
    uses: list[list[AdapterUse]] = [[(first, 1.0)], [], [(second, 0.5)], [(first, 1.0)]]
    texts = [TEXT, TEXT, TEXT, OTHER]
    alone = [whole(engine, text, *use) for text, use in zip(texts, uses, strict=True)]
    differ(alone[0], alone[1])
    differ(alone[0], alone[2])

    numbers = [opened(engine, *use) for use in uses]
    for at in (slice(0, 3), slice(3, None)):  # each with different numbers of rows, in order
        batch = [
            (number, text[at], len(text[at]) - i % 2)
            for i, (number, text) in enumerate(zip(numbers, texts, strict=True))
        ]
        wanted = [
            rows[: len(text)][at][i % 2 :]
            for i, (rows, text) in enumerate(zip(alone, texts, strict=True))
        ]
        same(read(engine, *batch), np.concatenate(wanted))


def check_scales_add_up(engine: Engine, one: Path, two: Path) -> None:
    first, second = (adaptable(engine).add_adapter(path) for path in (one, two))
    plain = whole(engine, TEXT)
    both = whole(engine, TEXT, (first, 0.75), (second, -0.25))
    differ(both, plain)
    differ(both, whole(engine, TEXT, (first, 0.75)))

    parts = [(second, -0.125), (first, 0.5), (second, -0.125), (first, 0.25)]
    same(whole(engine, TEXT, *parts), both)
    same(whole(engine, TEXT, (first, 0.5), (first, -0.5)), plain)
    same(whole(engine, TEXT, (first, 0.0)), plain)


def check_they_stay_when_sequences_come_and_go(engine: Engine, one: Path, two: Path) -> None:
    first, second = (adaptable(engine).add_adapter(path) for path in (one, two))
    right, other = whole(engine, TEXT, (first, 1.0)), whole(engine, TEXT, (second, 1.0))
    number = opened(engine, (first, 1.0))
    same(read(engine, (number, TEXT[:5], 5)), right[:5])
    beside = opened(engine, (second, 1.0))
    same(read(engine, (beside, TEXT, len(TEXT))), other)
    same(read(engine, (number, TEXT[5:9], 4)), right[5:9])
    engine.close(beside)
    same(read(engine, (number, TEXT[9:], len(TEXT) - 9)), right[9:])


def check_a_text_is_read_anew_for_others(engine: Engine, one: Path, two: Path) -> None:
    first, second = (adaptable(engine).add_adapter(path) for path in (one, two))
    plain, right = whole(engine, TEXT), whole(engine, TEXT, (second, 1.0))
    number = opened(engine, (first, 1.0))
    read(engine, (number, TEXT, 0))
    with pytest.raises(ValueError, match="not empty"):
        adaptable(engine).set_adapters(number, [(second, 1.0)])

    engine.trim(number, 0)
    adaptable(engine).set_adapters(number, [(second, 1.0)])
    same(read(engine, (number, TEXT, len(TEXT))), right)
    engine.trim(number, 0)
    adaptable(engine).set_adapters(number, [])
    same(read(engine, (number, TEXT, len(TEXT))), plain)


def check_a_removed_one_is_gone_but_for_its_users(engine: Engine, one: Path, two: Path) -> None:
    first, second = (adaptable(engine).add_adapter(path) for path in (one, two))
    right, plain = whole(engine, TEXT, (first, 1.0)), whole(engine, TEXT)
    number = opened(engine, (first, 1.0))
    adaptable(engine).remove_adapter(first)
    same(read(engine, (number, TEXT[:7], 7)), right[:7])
    with pytest.raises(ValueError, match="not there"):
        adaptable(engine).set_adapters(engine.open(), [(first, 1.0)])
    same(read(engine, (number, TEXT[7:], len(TEXT) - 7)), right[7:])

    engine.close(number)
    third = adaptable(engine).add_adapter(one)
    assert third not in (first, second)
    same(whole(engine, TEXT), plain)
    same(whole(engine, TEXT, (third, 1.0)), right)


def check_what_is_no_adapter_is_refused(engine: Engine, one: Path, two: Path) -> None:
    cut = one.with_name("cut.gguf")
    cut.write_bytes(one.read_bytes()[:-1000])
    for path, error in ((one.with_name("no.gguf"), NotFoundError), (cut, CorruptFileError)):
        with pytest.raises(error):
            adaptable(engine).add_adapter(path)
    number = engine.open()
    engine.close(number)
    with pytest.raises(ClosedError):
        adaptable(engine).set_adapters(number, [])
    engine.shutdown()
    with pytest.raises(ClosedError):
        adaptable(engine).add_adapter(one)


def check_hidden_states_have_them(engine: Engine, one: Path, two: Path) -> None:
    assert isinstance(engine, Embedder)
    first, second = (adaptable(engine).add_adapter(path) for path in (one, two))
    uses: list[list[AdapterUse]] = [[(first, 1.0)], [], [(second, 1.0)]]
    alone = []
    for use in uses:
        number = opened(engine, *use)
        alone.append(engine.embed([Slice(number, TEXT, 3)]))
        engine.close(number)
    differ(alone[0], alone[1])
    together = engine.embed([Slice(opened(engine, *use), TEXT, 3) for use in uses])
    same(together, np.concatenate(alone))


CHECKS: dict[str, Check] = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_")
}
