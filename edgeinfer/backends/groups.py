"""Texts that are read together: in groups of so many tokens and so many texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def groups(lengths: Sequence[int], *, most_tokens: int, most_texts: int) -> Iterator[slice]:
    """Cuts texts into groups, in order; one with more tokens is a group alone.

    Args:
        lengths: tokens of each text.
        most_tokens: of a group.
        most_texts: of a group.

    Yields:
        Which texts are the next group.
    """
    first = tokens = 0
    for number, length in enumerate(lengths):
        full = tokens + length > most_tokens or number - first == most_texts
        if full and number > first:
            yield slice(first, number)
            first, tokens = number, 0
        tokens += length
    if first < len(lengths):
        yield slice(first, len(lengths))
