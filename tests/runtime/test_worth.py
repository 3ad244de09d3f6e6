"""When tokens are guessed: only while it is faster, and what it costs to find that out."""

from __future__ import annotations

import random

import pytest

from edgeinfer.runtime.worth import MOST, MOST_LOST, Worth

FLAT = {n: 1.0 + 0.03 * (n - 1) for n in range(1, MOST + 2)}  # a large model, bound by its memory
STEEP = {n: 1.0 + 0.25 * (n - 1) for n in range(1, MOST + 2)}  # a small one
HOPELESS = {n: float(n) for n in range(1, MOST + 2)}


class Writing:
    """A text of tokens that are guessed right or not, on an engine of known cost."""

    def __init__(self, *, costs, is_free=True):
        self.worth = Worth(is_free=is_free)
        self.costs = costs
        self.is_free = is_free
        self.seconds = 0.0
        self.tokens = self.guessed = 0

    def write(self, outcomes):
        """``outcomes``: of each token whether its guess is right; None where there is none."""
        outcomes = list(outcomes)
        at = 0
        while at < len(outcomes):
            known = outcomes[at:].index(None) if None in outcomes[at:] else len(outcomes) - at
            count = min(self.worth.count(), known)
            right = outcomes[at : at + count]
            hits = right.index(False) if False in right else count
            for _ in range(hits):
                self.worth.judge(True)
            if hits < count:
                self.worth.judge(False)
            elif count == 0 and self.is_free:
                self.worth.judge(outcomes[at])
            seconds = self.costs[1 + count] / 100
            self.worth.step(read=1 + count, drawn=1 + hits, seconds=seconds)
            self.seconds += seconds
            self.tokens += 1 + hits
            self.guessed += count
            at += 1 + hits
        return self

    @property
    def speedup(self):
        return self.tokens * self.costs[1] / 100 / self.seconds


def coins(chance, count, seed=1):
    draw = random.Random(seed)
    return [draw.random() < chance for _ in range(count)]


@pytest.mark.parametrize("is_free", [True, False])
def test_a_text_that_repeats_itself_is_written_many_times_as_fast(is_free):
    assert Writing(costs=FLAT, is_free=is_free).write([True] * 400).speedup > 5
    assert Writing(costs=STEEP, is_free=is_free).write([True] * 400).speedup > 2.2


@pytest.mark.parametrize("costs", [FLAT, STEEP, HOPELESS], ids=["flat", "steep", "hopeless"])
@pytest.mark.parametrize("is_free", [True, False])
@pytest.mark.parametrize("chance", [0.0, 0.1, 0.3, 0.6, 0.9])
def test_guessing_never_costs_more_than_a_fiftieth(costs, is_free, chance):
    for seed in range(5):
        written = Writing(costs=costs, is_free=is_free).write(coins(chance, 600, seed))
        assert written.speedup > 0.98


def test_most_of_what_can_be_won_is_won():
    """A fair share of the best fixed number of guesses, which needs to know the chances."""
    for chance, costs in ((0.7, FLAT), (0.9, STEEP), (0.8, FLAT)):
        rates = []
        for count in range(1, MOST + 1):
            tokens = sum(chance**i for i in range(count + 1))
            rates.append(tokens / costs[1 + count])
        written = Writing(costs=costs).write(coins(chance, 4000))
        assert written.speedup > 0.85 * max(rates)


def test_a_text_without_guesses_costs_nothing():
    written = Writing(costs=STEEP).write([None] * 300)

    assert (written.guessed, written.speedup) == (0, pytest.approx(1.0))


def test_what_becomes_repetitive_late_is_noticed():
    written = Writing(costs=FLAT).write([None] * 300 + coins(0.1, 300))
    before = written.guessed
    seconds = written.seconds
    written.write([True] * 300)

    assert written.guessed - before > 200
    assert 300 * FLAT[1] / 100 / (written.seconds - seconds) > 4


def test_what_stops_being_repetitive_is_noticed():
    written = Writing(costs=STEEP).write([True] * 300)
    before, seconds = written.guessed, written.seconds
    written.write([False] * 300)

    assert written.guessed - before < 40
    assert 300 * STEEP[1] / 100 / (written.seconds - seconds) > 0.97


def test_the_first_steps_tell_what_a_token_takes():
    worth = Worth(is_free=False)
    assert worth.count() == 0
    worth.step(read=1, drawn=1, seconds=1)
    worth.step(read=1, drawn=1, seconds=1)
    assert worth.count() > 0


def test_a_loss_is_paid_back_before_the_next_guess():
    worth = Worth(is_free=False)
    for _ in range(2):
        worth.step(read=1, drawn=1, seconds=1)
    worth.judge(False)
    worth.step(read=5, drawn=1, seconds=1.2)  # 0.2 lost
    waited = 0
    while worth.count() == 0:
        worth.step(read=1, drawn=1, seconds=1)
        waited += 1
        assert waited < 1000

    assert waited * MOST_LOST >= 0.17


def test_one_slow_step_is_no_reason():
    worth = Worth(is_free=True)
    for _ in range(20):
        worth.judge(True)
        worth.step(read=1, drawn=1, seconds=0.01)
    usual = worth.count()
    worth.step(read=1, drawn=1, seconds=5)

    assert worth.count() == usual > 0


def test_the_speedup_is_of_the_whole_text():
    worth = Worth(is_free=True)
    assert worth.speedup == 1
    for _ in range(4):
        worth.step(read=1, drawn=1, seconds=1)
    for _ in range(4):
        worth.step(read=8, drawn=8, seconds=2)

    assert worth.speedup == pytest.approx(36 / 12)
