"""Speculation above any engine: several tokens are guessed and read in one step.

A guess is checked by drawing: the sampler draws from the logits after each token as it
would without guesses, with the same random stream, and as long as it draws what was
guessed the next logits are there already. At the first other token the rest is trimmed.
So every token is drawn from the model's own distribution given the text before it, at any
temperature. (Leviathan et al. 2023, arXiv:2211.17192, keep more of a guess that was itself
drawn; ours are certain, for which both rules are the same.)

The tokens are the same ones, too, on an engine that computes the same logits for a token
alone and among others, bit for bit (``backends.base.BatchInvariant``). On another one they are
as far as its rounding does not decide between the best two.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeinfer.runtime.drafters import Drafter
from edgeinfer.runtime.scheduler import Scheduler
from edgeinfer.runtime.sequence import Sequence as TextSequence
from edgeinfer.runtime.sequence import shifted
from edgeinfer.runtime.worth import MOST, Worth

Row = NDArray[np.float32]  # (n_vocab,)


class Reader(Protocol):
    """The logits of a text that grows, as the generator asks for them."""

    drafted: int  # tokens guessed so far
    accepted: int  # of these, drawn

    @property
    def speedup(self) -> float:
        """How many times as fast as a token a step the text came, as measured."""

    @property
    def room(self) -> int:
        """How many tokens can still be pushed."""

    def read(self, on_chunk: Callable[[], None] | None = None) -> Row:
        """The logits after the last token."""

    def push(self, token: int) -> None:
        """Appends a token."""

    def shift(self) -> None:
        """Makes room in a full context: keeps the first tokens and the last half."""

    def finish(self) -> None:
        """Leaves the sequence with the text alone."""


class Plain:
    """A token a step."""

    drafted = accepted = 0
    speedup = 1.0

    def __init__(self, scheduler: Scheduler, sequence: TextSequence) -> None:
        self._scheduler = scheduler
        self._sequence = sequence
        self.push = sequence.push

    @property
    def room(self) -> int:
        """As ``Reader.room``."""
        return self._sequence.room

    def read(self, on_chunk: Callable[[], None] | None = None) -> Row:
        """As ``Reader.read``."""
        return self._scheduler.read(self._sequence, on_chunk)

    def shift(self) -> None:
        """As ``Reader.shift``."""
        self._sequence.feed(shifted(self._sequence.cached, self._sequence.context))

    def finish(self) -> None:
        """There is nothing else."""


class Speculative:
    """Guesses of a drafter are read along with the drawn token, as many as pay.

    A drafter that is free is asked at every token, and what it says judged when the token is
    drawn, whether or not it was read along.
    """

    def __init__(self, scheduler: Scheduler, sequence: TextSequence, drafter: Drafter) -> None:
        self.drafted = self.accepted = 0
        self._scheduler = scheduler
        self._sequence = sequence
        self._drafter = drafter
        self._text = [*sequence.cached, *sequence.pending]
        self._guess: deque[int] = deque()  # read, but not yet drawn
        self._unread: int | None = None  # a guess at the next token that was not read
        self._rows: deque[Row] = deque()  # logits after the last token, and after each guess
        self._worth = Worth(is_free=drafter.is_free)
        self._step = _Step()

    @property
    def speedup(self) -> float:
        """As ``Reader.speedup``."""
        return self._worth.speedup

    @property
    def room(self) -> int:
        """As ``Reader.room``."""
        return self._sequence.context - len(self._text)

    def read(self, on_chunk: Callable[[], None] | None = None) -> Row:
        """As ``Reader.read``."""
        if not self._rows:
            started = time.perf_counter()
            count = 1 + len(self._guess)
            self._rows.extend(self._scheduler.read_rows(self._sequence, count, on_chunk))
            self._step.seconds += time.perf_counter() - started
        return self._rows.popleft()

    def push(self, token: int) -> None:
        """As ``Reader.push``."""
        self._text.append(token)
        if self._judge(token):
            self.accepted += 1
            self._step.drawn += 1
            return  # the logits after it are there
        if self._guess:
            self._forget(len(self._text) - 1)
        self._end_step()
        self._guess.extend(self._propose())
        self.drafted += len(self._guess)
        self._step.read = 1 + len(self._guess)
        for unread in (token, *self._guess):
            self._sequence.push(unread)

    def shift(self) -> None:
        """As ``Reader.shift``."""
        self._text = shifted(self._text, self._sequence.context)
        self._forget(len(self._sequence.cached))
        self._sequence.feed(self._text)
        self._drafter.restart()
        self._step = _Step()

    def finish(self) -> None:
        """As ``Reader.finish``."""
        self._end_step()
        self._forget(min(len(self._text), len(self._sequence.cached)))
        self._drafter.close()

    def _judge(self, token: int) -> bool:
        """Compares the guess with what was drawn; True if the logits after it are there."""
        if not self._guess:
            if self._step.read <= 1:  # after a guess that was all right there is one token more
                self._worth.judge(None if self._unread is None else self._unread == token)
            return False
        right = self._guess[0] == token
        self._worth.judge(right)
        if right:
            self._guess.popleft()
        return right

    def _propose(self) -> Sequence[int]:
        """What to read along; keeps a guess that is not, to judge it."""
        started = time.perf_counter()
        room = min(MOST, self.room)
        if self._drafter.is_free:
            guess = self._drafter.propose(self._text, max(room, 1))
            self._unread = guess[0] if guess else None
            guess = guess[: min(self._worth.count(), room)] if guess else ()
        else:
            count = min(self._worth.count(), room)
            guess = self._drafter.propose(self._text, count) if count > 0 else ()
        self._step.seconds += time.perf_counter() - started
        return guess

    def _end_step(self) -> None:
        step, self._step = self._step, _Step()
        if step.read > 0:  # not the prompt
            self._worth.step(read=step.read, drawn=step.drawn, seconds=step.seconds)

    def _forget(self, length: int) -> None:
        self._sequence.rewind(length)
        self._guess.clear()
        self._rows.clear()


@dataclass(slots=True)
class _Step:
    """What a step brings and takes; the time of those who use the tokens is no part of it."""

    read: int = 0  # tokens
    drawn: int = 1
    seconds: float = 0.0
