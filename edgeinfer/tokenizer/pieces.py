"""What each token is in bytes: the way back from ids to text."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
SPACE = "\u2581"  # SentencePiece's visible space


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's alphabet: printable Latin-1 stands for itself, the rest for U+0100 and on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + number): byte for number, byte in enumerate(others)
    }


BYTE_OF = _byte_alphabet()

Codec = Callable[[str], bytes]


def byte_level(text: str) -> bytes:
    """Bytes of a byte-level BPE token; one outside the alphabet is plain text."""
    try:
        return bytes([BYTE_OF[character] for character in text])
    except KeyError:
        return text.encode()


def sentencepiece(text: str) -> bytes:
    """Bytes of a SentencePiece token, ``<0x0A>`` being one byte."""
    byte = BYTE_TOKEN.fullmatch(text)
    return bytes([int(byte[1], 16)]) if byte else text.replace(SPACE, " ").encode()


def wordpiece(text: str) -> bytes:
    """Bytes of a WordPiece token: all but continuations begin with a space."""
    return text[2:].encode() if text.startswith("##") else f" {text}".encode()


def plain(text: str) -> bytes:
    """Bytes of a token that is text as it stands."""
    return text.encode()


def verbatim(codec: Codec, control: Iterable[int], added: Iterable[int]) -> frozenset[int]:
    """Returns the ids whose text stands for itself.

    SentencePiece writes the spaces of user-defined tokens as visible ones, too: Gemma has
    such tokens for runs of spaces.
    """
    return frozenset(control) | (frozenset() if codec is sentencepiece else frozenset(added))


class Pieces:
    """The texts of a vocabulary, and their bytes.

    Args:
        texts: the text of each id; None where an id has no token.
        codec: what the text of an ordinary token stands for.
        verbatim: ids whose text stands for itself (control and added tokens).
        leading_space: whether the first space of a whole text is the tokenizer's own.
    """

    def __init__(
        self,
        texts: Sequence[str | None],
        codec: Codec,
        *,
        verbatim: Collection[int],
        leading_space: bool,
    ) -> None:
        self.texts = texts
        self.leading_space = leading_space
        self.codec = codec
        self._verbatim = frozenset(verbatim)
        self._octets: dict[int, bytes] = {}

    def padded(self, size: int) -> Pieces:
        """Returns the same with ids up to ``size``, those added without a text."""
        return Pieces(
            [*self.texts, *[None] * (size - len(self.texts))],
            self.codec,
            verbatim=self._verbatim,
            leading_space=self.leading_space,
        )

    def octets(self, number: int) -> bytes:
        """Returns the bytes of a token."""
        found = self._octets.get(number)
        if found is None:
            text = self.texts[number] or ""
            # A lone surrogate cannot come out of a file that is UTF-8.
            found = text.encode() if number in self._verbatim else self.codec(text)
            self._octets[number] = found
        return found
