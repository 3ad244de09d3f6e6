"""Whether guessing pays, and how far ahead: all of it measured while the text is written.

Three things are known at any time. How often guesses are right, by how many were right just
before: a text that has followed an earlier one for ten tokens usually goes on to. What a step
of n tokens takes beside one of a single token. And what guessing has lost so far: however wrong
the other two are, it may not lose more than a hundredth of the time.
"""

from __future__ import annotations

from bisect import bisect_right

MOST = 15  # tokens guessed at a time
MARGIN = 1.1  # guessing must promise to be so many times as fast
MOST_LOST = 0.01  # of the time
PLAIN_STEPS = 2  # before the first guess, to know what a token takes

_STREAKS = (0, 1, 4, 12)  # guesses right in a row: from so many on, their own statistics
# How often guesses are right before any was seen; the statistics weigh as much as so many.
# Those that are not free can only be judged by trying.
_SUPPOSED = {True: (0.3, 0.6, 0.8, 0.9), False: (0.7, 0.7, 0.8, 0.9)}
_SUPPOSED_WEIGHT = 2.0
_KEPT = 0.95  # of the statistics, at each further one
_KEPT_UNTRIED = 0.99  # the same, at each token about which nothing was guessed
_NO_CHANCE = 0.01  # so unlikely a guess is not thought about
_SLOPE = 0.1  # what each further token of a step is supposed to take, in tokens alone
_RATE = 0.2  # weight of the newest time
_CREDIT, _DEBT = 4.0, 0.64  # what is kept of gains and losses, in tokens alone


class Worth:
    """Decides step by step; is told what each one brought.

    Args:
        is_free: guesses cost nothing to make, and are judged at every token.
    """

    def __init__(self, *, is_free: bool) -> None:
        self._acceptance = _Acceptance(_SUPPOSED[is_free])
        self._is_free = is_free
        self._costs = _Costs()
        self._plain_steps = 0
        self._lost = 0.0  # seconds
        self._tokens, self._seconds = 0, 0.0

    @property
    def speedup(self) -> float:
        """How many times as fast the text came as it would have without guesses."""
        return self._tokens * self._costs.of(1) / self._seconds if self._seconds else 1.0

    def judge(self, right: bool | None) -> None:
        """The next token was drawn, and was guessed or not; None if there was no guess."""
        self._acceptance.add(right)

    def step(self, *, read: int, drawn: int, seconds: float) -> None:
        """A step is over: so many tokens were read in it, so many drawn of its logits."""
        self._costs.add(read, seconds)
        self._tokens += drawn
        self._seconds += seconds
        plain = self._costs.of(1)
        if read > 1:
            self._lost += seconds - drawn * plain
        else:
            self._plain_steps += 1
            self._lost -= MOST_LOST * seconds
            if not self._is_free:
                self._acceptance.forget()
        self._lost = min(max(self._lost, -_CREDIT * plain), _DEBT * plain)

    def count(self) -> int:
        """How many tokens to guess now; 0 if guessing does not pay."""
        if self._plain_steps < PLAIN_STEPS or self._lost > 0:
            return 0
        best, best_value = 0, MARGIN
        plain, expected, chance = self._costs.of(1), 1.0, 1.0
        for count in range(1, min(MOST, 2 * self._costs.most) + 1):
            chance *= self._acceptance.chance(count - 1)
            if chance < _NO_CHANCE:
                break
            expected += chance
            value = expected * plain / self._costs.of(1 + count)
            if value > best_value:
                best, best_value = count, value
        return best


class _Acceptance:
    """How often guesses are right, by how many were right before."""

    def __init__(self, supposed: tuple[float, ...]) -> None:
        self._supposed = supposed
        self._right = [0.0] * len(_STREAKS)
        self._all = [0.0] * len(_STREAKS)
        self._streak = 0

    def add(self, right: bool | None) -> None:
        if right is not None:
            group = _group(self._streak)
            self._right[group] = self._right[group] * _KEPT + right
            self._all[group] = self._all[group] * _KEPT + 1
        self._streak = self._streak + 1 if right else 0

    def forget(self) -> None:
        self._right = [count * _KEPT_UNTRIED for count in self._right]
        self._all = [count * _KEPT_UNTRIED for count in self._all]

    def chance(self, further: int) -> float:
        """How likely a guess is right after so many more that were."""
        group = _group(self._streak + further)
        right = self._right[group] + _SUPPOSED_WEIGHT * self._supposed[group]
        return right / (self._all[group] + _SUPPOSED_WEIGHT)


def _group(streak: int) -> int:
    return bisect_right(_STREAKS, streak) - 1


class _Costs:
    """Seconds of a step by the tokens read in it."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._counts: dict[int, int] = {}

    def add(self, tokens: int, seconds: float) -> None:
        count = self._counts[tokens] = self._counts.get(tokens, 0) + 1
        if not self._seconds:
            self._seconds[tokens] = seconds
            return
        known = self.of(tokens)
        # Now and then a step takes ten times as long, for reasons of the system's.
        new = min(seconds, 2 * known)
        self._seconds[tokens] = known + max(_RATE, 1 / count) * (new - known)

    @property
    def most(self) -> int:
        """The most tokens that a step was measured of."""
        return max(self._seconds, default=0)

    def of(self, tokens: int) -> float:
        """Measured; else on the line between its neighbours, or beyond them."""
        found = self._seconds.get(tokens)
        if found is not None or not self._seconds:
            return found or 0.0
        below = max((n for n in self._seconds if n < tokens), default=min(self._seconds))
        above = min((n for n in self._seconds if n > tokens), default=below)
        alone = self._seconds.get(1, self._seconds[below])
        if above > below:
            slope = (self._seconds[above] - self._seconds[below]) / (above - below)
        else:
            slope = max(_SLOPE * alone, (self._seconds[below] - alone) / max(below - 1, 1))
        return self._seconds[below] + (tokens - below) * slope
