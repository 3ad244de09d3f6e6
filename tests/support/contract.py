"""What every engine promises: each check is a function of an engine, or of a way to load one."""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import psutil
import pytest

from edgeinfer.backends.base import BatchInvariant, Engine, Slice, StateKeeper
from edgeinfer.errors import ClosedError, ContextFullError

CONTEXT = 64
TEXT = [7, 3, 11, 7, 100, 42, 3, 3, 9, 250, 17, 64, 5, 1, 2, 99]
OTHER = [8, 8, 1, 60, 12]
Check = Callable[[Engine], None]
Loader = Callable[[], Engine]


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
    left = engine.trim(number, 4)
    assert 0 <= left <= 4
    same(read(engine, (number, TEXT[left:], len(TEXT) - 4)), whole(engine, TEXT)[4:])
    assert engine.trim(number, 0) == 0
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


def check_what_makes_no_sense_is_refused_whole(engine: Engine) -> None:
    first, second = engine.open(), engine.open()
    read(engine, (first, TEXT[:3], 0))

    for batch in (
        [(second, [engine.config.vocab_size], 1)],  # no such token
        [(second, [-1], 1)],
        [(second, [], 0)],  # no tokens
        [(second, [1], 2)],  # more rows than tokens
        [(second, [1], -1)],
        [(second, [1], 1), (second, [1], 1)],  # a sequence twice
    ):
        with pytest.raises(ValueError):
            read(engine, (first, OTHER, 1), *batch)
    for length in (-1, 4):
        with pytest.raises(ValueError):
            engine.trim(first, length)

    same(read(engine, (first, TEXT[3:], len(TEXT) - 3)), whole(engine, TEXT)[3:])


def check_greedy_tokens_do_not_hang_on_the_way_to_read(engine: Engine) -> None:
    """Token by token and all at once choose alike."""
    text = greedy(engine, TEXT, 24)
    rows = whole(engine, TEXT + text)[len(TEXT) - 1 : -1]
    assert rows.argmax(axis=1).tolist() == text


def check_a_saved_state_goes_on_where_it_was(engine: Engine) -> None:
    """Of an engine that keeps states; another one has nothing to show."""
    if not isinstance(engine, StateKeeper):
        return
    first = engine.open()
    read(engine, (first, TEXT[:9], 0))
    state = bytes(engine.save_state(first))
    engine.close(first)

    other, number = engine.open(), engine.open()
    read(engine, (other, OTHER[:2], 0))
    for wrong, length in ((state[:-5], 9), (state, CONTEXT + 1), (b"", 9)):
        with pytest.raises(ValueError):
            engine.restore_state(number, wrong, length)
    engine.restore_state(number, state, 9)
    same(read(engine, (number, TEXT[9:], len(TEXT) - 9)), whole(engine, TEXT)[9:])
    same(read(engine, (other, OTHER[2:], 3)), whole(engine, OTHER)[2:])


def check_a_batch_changes_no_bit(engine: Engine) -> None:
    """Of an engine that promises it: alone, in company, and beside another text."""
    if not isinstance(engine, BatchInvariant):
        return
    expected = whole(engine, TEXT)
    for size in (1, 2, 3, 4, 7, 12, 15):
        first, second = engine.open(), engine.open()
        read(engine, (first, TEXT[: len(TEXT) - size], 0))
        rows = read(engine, (second, OTHER, 0), (first, TEXT[len(TEXT) - size :], size))
        np.testing.assert_array_equal(rows, expected[len(TEXT) - size :])
        engine.close(first)
        engine.close(second)


CHECKS: dict[str, Check] = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_")
}


def greedy(engine: Engine, tokens: list[int], count: int) -> list[int]:
    """The likeliest next tokens, decoded one by one."""
    number, text = engine.open(), list(tokens)
    piece = text
    while len(text) < len(tokens) + count:
        piece = [int(read(engine, (number, piece, 1))[0].argmax())]
        text += piece
    engine.close(number)
    return text[len(tokens) :]


# ---- memory ----------------------------------------------------------------------------------

ROUNDS = 4
LONG = 1024  # tokens of context that make the keys and values weigh something
NOISE = 16 << 20  # bytes that an allocator keeps, whatever it is asked for


def taken() -> tuple[int, int]:
    """Bytes that are resident, and bytes that allocations hold.

    Neither sees all: a kept block may lie where a heap was resident before, and what is mapped
    without an allocator is in no heap.
    """
    heap = psutil.heap_info()
    return psutil.Process().memory_info().rss, heap.heap_used + heap.mmap_used


def grown(work: Callable[[], None]) -> int:
    """How many bytes more a process has after doing the same again and again."""
    work()  # libraries load, allocators grow
    gc.collect()  # what others left behind, which would go meanwhile
    before = taken()
    for _ in range(ROUNDS):
        work()
    return max(now - then for now, then in zip(taken(), before, strict=True))


def memory_check_closed_sequences(load: Loader) -> None:
    engine = load()

    def fill() -> None:
        numbers = [engine.open() for _ in range(2)]
        for number in numbers:
            read(engine, (number, [1] * LONG, 0))
        for number in numbers:
            engine.close(number)

    assert grown(fill) < NOISE
    engine.shutdown()


def memory_check_shut_engines(load: Loader) -> None:
    def run() -> None:
        engine = load()
        read(engine, (engine.open(), TEXT, 1))
        engine.shutdown()

    assert grown(run) < NOISE


MEMORY_CHECKS: dict[str, Callable[[Loader], None]] = {
    name.removeprefix("memory_check_"): check
    for name, check in list(globals().items())
    if name.startswith("memory_check_")
}
