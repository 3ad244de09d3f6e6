"""Drafters: what guesses how a text goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from edgeinfer.runtime.scheduler import Scheduler

if TYPE_CHECKING:
    from edgeinfer.runtime.model import Model

NGRAM = 3  # tokens that must have been seen together


class Drafter(Protocol):
    """Guesses how a text goes on.

    ``is_free``: a guess takes next to no time, so that one can be made at every token, only
    to see how often it is right.
    """

    is_free: bool

    def propose(self, text: Sequence[int], most: int) -> Sequence[int]:
        """Returns at most so many tokens; none if there is nothing to go by.

        The text grows from call to call, except after ``restart``.
        """

    def restart(self) -> None:
        """The next text is another one."""

    def close(self) -> None:
        """Gives back what it holds."""


class PromptLookup:
    """Guesses what followed the last NGRAM tokens the last time they occurred.

    A guess may run into itself, so that a text of one period goes on for ever.
    """

    is_free = True

    def __init__(self) -> None:
        self._ends: dict[tuple[int, ...], int] = {}  # n-gram -> the place after it
        self._seen = 0  # tokens whose n-grams are known

    def propose(self, text: Sequence[int], most: int) -> Sequence[int]:
        """As ``Drafter.propose``."""
        for end in range(max(self._seen, NGRAM), len(text)):
            self._ends[tuple(text[end - NGRAM : end])] = end
        self._seen = len(text)
        start = self._ends.get(tuple(text[-NGRAM:]))
        if start is None:
            return []
        period = len(text) - start
        return [text[start + i % period] for i in range(most)]

    def restart(self) -> None:
        """As ``Drafter.restart``."""
        self._ends.clear()
        self._seen = 0

    def close(self) -> None:
        """It holds nothing."""


class DraftModel:
    """Guesses what a smaller model of the same vocabulary finds likeliest."""

    is_free = False

    def __init__(self, model: Model) -> None:
        self._sequence = model.open_sequence()
        self._scheduler = Scheduler(self._sequence.engine, model.plan.batch)

    def propose(self, text: Sequence[int], most: int) -> Sequence[int]:
        """As ``Drafter.propose``."""
        most = min(most, self._sequence.context - len(text))
        if most <= 0:
            return []
        self._sequence.feed(text)
        guessed: list[int] = []
        while True:
            guessed.append(int(self._scheduler.read(self._sequence).argmax()))
            if len(guessed) >= most:
                return guessed
            self._sequence.push(guessed[-1])

    def restart(self) -> None:
        """Its sequence keeps what the texts begin with alike."""

    def close(self) -> None:
        """Gives its cache back."""
        self._sequence.close()
