"""Who has which page of the cache."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeinfer.backends.mlc.packing import aligned

PAGE = 16  # positions


class Pages:
    """A cache that grows when no page is free; pages of closed sequences are used again.

    Args:
        shape: of a page.
        dtype: of keys and values.
        first: pages to begin with; the system gives memory as they fill.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str, first: int) -> None:
        self._shape, self._dtype = shape, dtype
        self.cache: NDArray[Any] = aligned((first, *shape), dtype)
        self._free = list(range(first - 1, -1, -1))

    def take(self, count: int) -> list[int]:
        """Returns free pages."""
        while len(self._free) < count:
            held = len(self.cache)
            larger = aligned((2 * held, *self._shape), self._dtype)
            larger[:held] = self.cache
            self.cache = larger
            self._free = [*range(2 * held - 1, held - 1, -1), *self._free]
        return [self._free.pop() for _ in range(count)]

    def give(self, pages: list[int]) -> None:
        """Takes pages back."""
        self._free += reversed(pages)


class Sequence:
    """A sequence: its length, and the pages that hold it."""

    def __init__(self) -> None:
        self.length = 0
        self.pages: list[int] = []

    def grow(self, count: int, pages: Pages) -> NDArray[np.int32]:
        """Makes room for tokens more and returns their slots; the length stays as it is."""
        last = self.length + count
        missing = -(-last // PAGE) - len(self.pages)
        if missing > 0:
            self.pages += pages.take(missing)
        positions = np.arange(self.length, last)
        held = np.array(self.pages, np.int64)
        return (held[positions // PAGE] * PAGE + positions % PAGE).astype(np.int32)

    def cut(self, length: int, pages: Pages) -> None:
        """Forgets all but the first tokens."""
        kept = -(-length // PAGE)
        pages.give(self.pages[kept:])
        self.pages, self.length = self.pages[:kept], length
