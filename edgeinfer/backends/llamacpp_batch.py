"""A batch as llama.cpp takes it: a table of tokens, cut into pieces that it can compute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeinfer.backends.base import Slice

# Adapters by their addresses, each with its scale, in order.
Uses = tuple[tuple[int, float], ...]


@dataclass(slots=True)
class Place:
    """Where a sequence is: its number in llama.cpp's context, its tokens there, its adapters."""

    slot: int
    length: int = 0
    uses: Uses = ()


# Rows of the table of a batch's tokens.
TOKEN, POSITION, SLOT, WANTED = range(4)


def table(batch: Sequence[Slice], places: Sequence[Place]) -> NDArray[np.int32]:
    """The tokens of a batch, each with position, slot and whether its row is wanted."""
    parts = []
    for part, place in zip(batch, places, strict=True):
        count = len(part.tokens)
        table = np.empty((4, count), np.int32)
        table[TOKEN] = part.tokens
        table[POSITION] = np.arange(place.length, place.length + count)
        table[SLOT] = place.slot
        table[WANTED] = np.arange(count) >= count - part.wants_logits
        parts.append(table)
    return np.concatenate(parts, axis=1) if parts else np.empty((4, 0), np.int32)


def pieces(work: NDArray[np.int32], most: int, most_rows: int) -> Iterator[NDArray[np.int32]]:
    """Cuts a table into pieces of at most ``most`` tokens and ``most_rows`` wanted rows."""
    while work.shape[1]:
        rows = np.cumsum(work[WANTED, :most])
        count = int(np.searchsorted(rows, most_rows, side="right"))
        yield work[:, :count]
        work = work[:, count:]
