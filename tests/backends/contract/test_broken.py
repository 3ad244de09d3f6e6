"""Engines that break the contract, each caught by the check that is there for it."""

from __future__ import annotations

import itertools
from typing import ClassVar

import numpy as np
import pytest

from edgeinfer.backends import fake
from support import contract
from support.contract import CONTEXT


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
        return length


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


class Guesses(fake.FakeEngine):
    """Reads what it does not know as something it does."""

    def _check(self, batch):
        pass

    def trim(self, sequence, length):
        return super().trim(sequence, min(max(length, 0), len(self._text(sequence))))


class Hasty(fake.FakeEngine):
    """Computes single tokens by a kernel with a sign wrong."""

    def step(self, batch):
        logits = super().step(batch)
        return -logits if len(logits) == sum(len(part.tokens) for part in batch) == 1 else logits


class Sociable(fake.FakeEngine):
    """Promises what it does not keep: company changes the last bits."""

    batch_invariant = True

    def step(self, batch):
        return super().step(batch) * np.float32(1 + 1e-6 * sum(len(part.tokens) for part in batch))


class Forgetful(fake.FakeEngine):
    """Restores a state as an empty one."""

    def restore_state(self, sequence, state, length):
        super().restore_state(sequence, state, length)
        self._text(sequence)[:] = [0] * length


class Hoarder(fake.FakeEngine):
    """Keeps the memory of what is closed."""

    kept: ClassVar[list[np.ndarray]] = []

    def open(self):
        self.kept.append(np.ones(4 << 20, np.float32))
        return super().open()


BROKEN = [
    (NoMemory, contract.check_chunks_equal_the_whole),
    (OneMemory, contract.check_sequences_do_not_disturb_each_other),
    (NoTrim, contract.check_trim_forgets_the_rest),
    (HalfFull, contract.check_a_full_context_changes_nothing),
    (ReusesNumbers, contract.check_a_closed_sequence_says_so),
    (Dice, contract.check_runs_are_equal_to_the_bit),
    (LastRows, contract.check_logits_have_a_row_a_wanted_token),
    (Immortal, contract.check_a_shut_engine_says_so),
    (Guesses, contract.check_what_makes_no_sense_is_refused_whole),
    (Forgetful, contract.check_a_saved_state_goes_on_where_it_was),
    (Sociable, contract.check_a_batch_changes_no_bit),
    (Hasty, contract.check_greedy_tokens_do_not_hang_on_the_way_to_read),
]


@pytest.mark.parametrize(("broken", "check"), BROKEN, ids=lambda value: value.__name__)
def test_a_broken_engine_is_caught(broken, check):
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(broken(fake.FakeBackend(), CONTEXT))


@pytest.mark.parametrize("check", contract.MEMORY_CHECKS.values(), ids=contract.MEMORY_CHECKS)
def test_kept_memory_is_noticed(check):
    with pytest.raises(AssertionError):
        check(lambda: Hoarder(fake.FakeBackend(), contract.LONG))
    Hoarder.kept.clear()


def test_every_check_can_fail():
    assert {check for _, check in BROKEN} == set(contract.CHECKS.values())
