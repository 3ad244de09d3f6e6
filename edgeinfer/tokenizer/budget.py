"""What one rendering of a template may use: processor time and bytes.

A chat template comes with a model and may be hostile. Python cannot stop one long
operation from outside, so each operation that can be large is weighed before it runs.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.runtime import LoopContext, Undefined
from jinja2.utils import Namespace

MiB = 1 << 20
SECONDS = 0.25
BYTES = 12 * MiB
# Long conversations get more: each byte of input may be looked at and copied this often.
BYTES_PER_INPUT_BYTE = 64
SECONDS_PER_INPUT_BYTE = 2e-6
DEEPEST = 100
LARGEST_INT_BITS = 4096
_TICKS_PER_LOOK = 16  # a look at the clock is a system call

_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))


class LimitError(SecurityError):
    """A template asked for more than a rendering may use."""


class Budget:
    """What is left for a rendering whose input has ``input_bytes`` bytes."""

    def __init__(self, input_bytes: int = 0) -> None:
        self._bytes_left = BYTES + BYTES_PER_INPUT_BYTE * input_bytes
        self._deadline = time.thread_time() + SECONDS + SECONDS_PER_INPUT_BYTE * input_bytes
        self._ticks = 0

    def tick(self, size: int = 0) -> None:
        """Counts a step that makes ``size`` bytes, about to be done.

        Raises:
            LimitError: the bytes or the time are used up.
        """
        self._bytes_left -= size
        if self._bytes_left < 0:
            raise LimitError("it makes too much text")
        self._ticks += 1
        if self._ticks % _TICKS_PER_LOOK == 0 and time.thread_time() > self._deadline:
            raise LimitError("it takes too long")

    def pay(self, value: Any) -> Any:
        """Counts a value that has just been made, and returns it."""
        kind = type(value)
        if kind is bool or value is None:
            self.tick()
        elif isinstance(value, str | int | list | tuple | dict | bytes):
            self.tick(sys.getsizeof(value))
        else:
            self.tick()
        return value

    def weigh(self, value: Any) -> int:
        """Returns about how many bytes a value has when written out, at most what is left.

        A list may hold the same list twice, and that one another twice: a few such
        lists are more text than there are atoms, so shared ones are weighed once, but
        count each time.

        Raises:
            LimitError: more than the bytes that are left, or nested too deep.
        """
        if type(value) is str:
            return sys.getsizeof(value)
        return self._weigh(value, {}, 0)

    def _weigh(self, value: Any, known: dict[int, int], depth: int) -> int:
        if isinstance(value, str):
            return sys.getsizeof(value)
        if isinstance(value, int):
            if value.bit_length() > LARGEST_INT_BITS:
                raise LimitError("it counts too high")
            return 64
        if value is None or isinstance(value, float | Undefined | range | Namespace | LoopContext):
            return 64
        if not isinstance(value, (list, tuple, dict, *_VIEWS)):
            raise SecurityError(f"it writes out a {type(value).__name__}")
        if id(value) in known:
            return known[id(value)]
        if depth > DEEPEST:
            raise LimitError("it nests too deep")
        size = 64
        parts: Any = value
        if isinstance(value, dict):
            size += sum(self._weigh(key, known, depth + 1) for key in value)
            parts = value.values()
        for part in parts:
            size += self._weigh(part, known, depth + 1)
            if size > self._bytes_left:
                raise LimitError("it makes too much text")
        self.tick()
        known[id(value)] = size
        return size


class _Active(threading.local):
    """The budget of the rendering that this thread is at."""

    budget = Budget()


_active = _Active()


def budget() -> Budget:
    """Returns the budget of the current rendering."""
    return _active.budget


def begin(input_bytes: int) -> None:
    """Starts a rendering on this thread with a fresh budget."""
    _active.budget = Budget(input_bytes)
