"""Who runs in the next step: decoding sequences first, then prefill in chunks.

There is no thread of its own. Whoever waits for logits steps for everyone: threads that
generate at the same time find their tokens in one batch, and a lone one pays nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from edgeinfer.backends.base import Engine, Slice
from edgeinfer.runtime.sequence import Sequence

# Called with (tokens read, tokens to read).
OnPrefill = Callable[[int, int], None]


@dataclass(slots=True, eq=False)
class _Waiting:
    """A sequence whose pending tokens are to be read, and the logits after the last ones."""

    sequence: Sequence
    wanted: int  # rows, of the last pending tokens
    rows: list[NDArray[np.float32]] = field(default_factory=list)  # (n_vocab,) each

    @property
    def done(self) -> bool:
        """All is read."""
        return len(self.rows) == self.wanted

    def rows_of(self, count: int) -> int:
        """How many of the next ``count`` tokens a row is wanted of."""
        left = len(self.sequence.pending)
        return max(0, count - left + min(self.wanted, left))


class Scheduler:
    """Runs the engine's steps, each of at most ``batch`` tokens."""

    def __init__(self, engine: Engine, batch: int) -> None:
        self.engine = engine
        self.batch = batch
        self._waiting: list[_Waiting] = []
        self._stepping = threading.Lock()  # held during a step
        self._queue = threading.Lock()  # held for moments, to look at or change _waiting

    def read(
        self, sequence: Sequence, on_chunk: Callable[[], None] | None = None
    ) -> NDArray[np.float32]:
        """Reads a sequence's pending tokens.

        Args:
            sequence: one that no other call is reading.
            on_chunk: called after each step; what it raises ends the reading.

        Returns:
            The logits after the last token, float32 (n_vocab,).
        """
        return self.read_rows(sequence, 1, on_chunk)[0]

    def read_rows(
        self, sequence: Sequence, wanted: int, on_chunk: Callable[[], None] | None = None
    ) -> list[NDArray[np.float32]]:
        """As ``read``; returns the logits after each of the last ``wanted`` tokens."""
        waiting = _Waiting(sequence, wanted)
        with self._queue:
            self._waiting.append(waiting)
        try:
            while not waiting.done:
                with self._stepping:
                    # Another thread's step may have read the tokens in the meantime.
                    if not waiting.done:
                        self._step()
                if on_chunk is not None:
                    on_chunk()
            return waiting.rows
        finally:
            if not waiting.done:  # given up: no step may go on with this sequence
                with self._stepping, self._queue:
                    self._waiting.remove(waiting)

    def _step(self) -> None:
        """One step for all who wait, as far as the batch reaches."""
        with self._queue:
            # A sequence that needs one token blocks a reader; a long prompt can wait.
            order = sorted(self._waiting, key=lambda w: len(w.sequence.pending))
        running: list[tuple[_Waiting, int]] = []
        room = self.batch
        for waiting in order:
            count = min(len(waiting.sequence.pending), room)
            if count > 0:
                running.append((waiting, count))
                room -= count
        slices = [
            Slice(
                waiting.sequence.number,
                waiting.sequence.pending[:count],
                wants_logits=waiting.rows_of(count),
            )
            for waiting, count in running
        ]
        rows = iter(self.engine.step(slices))
        for (waiting, count), part in zip(running, slices, strict=True):
            waiting.sequence.cached += part.tokens
            del waiting.sequence.pending[:count]
            waiting.rows += islice(rows, part.wants_logits)
            if waiting.done:
                with self._queue:
                    self._waiting.remove(waiting)
