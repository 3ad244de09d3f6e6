"""Speculation above any engine: several tokens are guessed and read in one step.

A guess is checked by drawing: the sampler draws from the logits after each token as it
would without guesses, with the same random stream, and as long as it draws what was
guessed the next logits are there already. At the first other token the rest is trimmed.
So every token is drawn from the model's own distribution given the text before it, at any
temperature, and the same tokens come out, as far as the engine computes the same logits
for a token alone and among others. (Leviathan et al. 2023, arXiv:2211.17192, keep more of
a guess that was itself drawn; ours are certain, for which both rules are the same.)

Guesses come of the text itself (prompt lookup: what followed the last tokens before) or
of a smaller model with the same vocabulary.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeinfer.runtime.scheduler import Scheduler
from edgeinfer.runtime.sequence import Sequence as TextSequence
from edgeinfer.runtime.sequence import shifted

if TYPE_CHECKING:
    from edgeinfer.runtime.model import Model

MOST = 12  # tokens guessed at a time
NGRAM = 3  # tokens that must have been seen together
TRIALS = 4  # steps before guesses are judged
PAUSE = 64  # tokens without guesses after they turned out slower

Row = NDArray[np.float32]  # (n_vocab,)


class Drafter(Protocol):
    """Guesses how a text goes on."""

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


class Reader(Protocol):
    """The logits of a text that grows, as the generator asks for them."""

    drafted: int  # tokens guessed so far
    accepted: int  # of these, drawn

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
    """Guesses of a drafter are read along with the drawn token."""

    def __init__(self, scheduler: Scheduler, sequence: TextSequence, drafter: Drafter) -> None:
        self.drafted = self.accepted = 0
        self._scheduler = scheduler
        self._sequence = sequence
        self._drafter = drafter
        self._text = [*sequence.cached, *sequence.pending]
        self._guess: deque[int] = deque()  # read, but not yet drawn
        self._rows: deque[Row] = deque()  # logits after the last token, and after each guess
        self._most = 4
        self._worth = _Worth()

    @property
    def room(self) -> int:
        """As ``Reader.room``."""
        return self._sequence.context - len(self._text)

    def read(self, on_chunk: Callable[[], None] | None = None) -> Row:
        """As ``Reader.read``."""
        if not self._rows:
            count = 1 + len(self._guess)
            self._rows.extend(self._scheduler.read_rows(self._sequence, count, on_chunk))
        return self._rows.popleft()

    def push(self, token: int) -> None:
        """As ``Reader.push``."""
        self._text.append(token)
        if self._guess and self._guess[0] == token:
            self._guess.popleft()
            self.accepted += 1
            self._worth.gain()
            return  # the logits after it are there
        if self._guess:
            self._most = max(1, self._most // 2)
            self._forget(len(self._text) - 1)
        elif self._worth.guessed:
            self._most = min(MOST, self._most * 2)
        self._worth.next_step()
        most = min(self._most, self.room) if self._worth.guess else 0
        self._guess.extend(self._drafter.propose(self._text, most) if most > 0 else ())
        self.drafted += len(self._guess)
        self._worth.guessed = bool(self._guess)
        for unread in (token, *self._guess):
            self._sequence.push(unread)

    def shift(self) -> None:
        """As ``Reader.shift``."""
        self._text = shifted(self._text, self._sequence.context)
        self._forget(len(self._sequence.cached))
        self._sequence.feed(self._text)
        self._drafter.restart()

    def finish(self) -> None:
        """As ``Reader.finish``."""
        self._forget(min(len(self._text), len(self._sequence.cached)))
        self._drafter.close()

    def _forget(self, length: int) -> None:
        self._sequence.rewind(length)
        self._guess.clear()
        self._rows.clear()


class _Worth:
    """Whether guessing pays: tokens a second with guesses and without, measured as it goes."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.guess = False  # the first steps measure what a token costs without
        self.guessed = False  # the step that runs has guesses
        self._clock = clock
        self._started: float | None = None
        self._gained = 0
        self._plain = _Rate()
        self._speculative = _Rate()
        self._pause = TRIALS

    def gain(self) -> None:
        """A guess was drawn."""
        self._gained += 1

    def next_step(self) -> None:
        """A step is over, with all that was drawn of it; decides on the next one."""
        now = self._clock()
        if self._started is not None:
            rate = self._speculative if self.guessed else self._plain
            rate.add(1 + self._gained, now - self._started)
        self._started, self._gained = now, 0
        if self._pause > 0:
            self._pause -= 1
            self.guess = self._pause == 0
        elif self._speculative.steps >= TRIALS and self._speculative.slower_than(self._plain):
            self.guess, self._pause = False, PAUSE
            self._speculative = _Rate()


class _Rate:
    """Tokens per second; the past counts less and less."""

    def __init__(self) -> None:
        self.steps = 0
        self._tokens = self._seconds = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        self.steps += 1
        self._tokens = 0.9 * self._tokens + tokens
        self._seconds = 0.9 * self._seconds + seconds

    def slower_than(self, other: _Rate) -> bool:
        return self._tokens * other._seconds < other._tokens * self._seconds
