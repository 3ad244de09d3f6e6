"""Ends a text at the first stop string, also at one that spans several tokens."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Lets text through except what is, or may become, a stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = tuple(stops)
        self.stopped = False
        self._held = ""

    def push(self, text: str) -> str:
        """Adds text; returns what is certainly no part of a stop string.

        After ``stopped`` is true, the text before the stop string has been returned.
        """
        text = self._held + text
        # Of several, the one that is complete first, as if each character came alone.
        found = [(at + len(stop), at) for stop in self.stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)[1]]
        hold = self._may_begin(text)
        self._held = text[len(text) - hold :]
        return text[: len(text) - hold]

    def finish(self) -> str:
        """Returns what was held back, at the end of the text."""
        text, self._held = self._held, ""
        return text

    def _may_begin(self, text: str) -> int:
        """Length of the longest end of the text that begins a stop string."""
        longest = max(map(len, self.stops), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            tail = text[-length:]
            if any(stop.startswith(tail) for stop in self.stops):
                return length
        return 0
