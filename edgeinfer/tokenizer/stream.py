"""From ids to whole characters, one id at a time."""

from __future__ import annotations

import codecs
from collections.abc import Callable


class StreamDecoder:
    """Bytes of tokens in, whole characters out; never half of one.

    A character may need several tokens: ``push`` then returns "" until it is whole.
    What ``push`` and ``finish`` return, joined, is the tokenizer's ``decode`` of the ids.
    """

    def __init__(self, octets: Callable[[int], bytes], *, drop_leading_space: bool) -> None:
        self._octets = octets
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._drop_space = drop_leading_space

    def push(self, number: int) -> str:
        """Returns the characters that this token completes."""
        return self._decode(self._octets(number), final=False)

    def finish(self) -> str:
        """Returns U+FFFD if the last character is not whole, else ""."""
        return self._decode(b"", final=True)

    def _decode(self, octets: bytes, *, final: bool) -> str:
        text = self._utf8.decode(octets, final)
        if text and self._drop_space:
            self._drop_space = False
            text = text.removeprefix(" ")
        return text
