"""Random Unicode text that finds the seams of tokenizers: scripts, marks, spaces, emoji."""

from __future__ import annotations

import random
import sys
import unicodedata
from collections.abc import Sequence

_WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "it's",
    "I'LL",
    "don't",
    "We've",
    "café",
    "naïve",
    "Übergröße",
    "мир",
    "привет",
    "Ελλάδα",
    "שלום",
    "مرحبا",
    "नमस्ते",
    "ภาษาไทย",
    "こんにちは",
    "世界",
    "한국어",
    "½",
    "²",
    "Ⅷ",
    "٣٤",
    "123",
    "1234567",
    "3.14",
    "foo_bar",
    "FooBar",
    "x=y+1",
    "http://a.b/c?d=e",
    "<|user|>",
    "<s>",
    "</s>",
    "[INST]",
    "<0x0A>",
    "▁",
    "ġ",
    "Ġ",
    "##ing",
]
_SPACES = (" ", "  ", "    ", "\n", "\n\n", "\r\n", "\t", " \n ", "\u00a0", "\u3000", "\u2009")
_EMOJI = ("🦙", "👩‍👩‍👧", "🇩🇪", "✅", "👍🏽", "😶‍🌫️")
_RANGES = (
    (0x20, 0x7F),
    (0x20, 0x7F),
    (0xA1, 0x250),
    (0x300, 0x370),  # combining marks
    (0x370, 0x530),
    (0x590, 0x700),
    (0x900, 0xE00),
    (0x2000, 0x2BFF),
    (0x3000, 0x3100),
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A0),
    (0x1F300, 0x1F700),
)


def random_texts(
    count: int, *, seed: int, extra: Sequence[str] = (), nfc: bool = False
) -> list[str]:
    """Returns texts of up to some 60 parts: words, runs of spaces, single characters.

    Args:
        count: of texts; the same seed gives the same ones.
        seed: of the generator.
        extra: further parts to draw, such as the markers of a vocabulary.
        nfc: composes the texts, for comparison with tokenizers that do not.
    """
    draw = random.Random(seed)
    parts = (*_WORDS, *extra)
    texts = ["".join(_part(draw, parts) for _ in range(draw.randint(0, 60))) for _ in range(count)]
    return [unicodedata.normalize("NFC", text) for text in texts] if nfc else texts


def _part(draw: random.Random, words: Sequence[str]) -> str:
    match draw.randrange(6):
        case 0 | 1:
            return draw.choice(words)
        case 2 | 3:
            return draw.choice(_SPACES)
        case 4:
            return draw.choice(_EMOJI)
        case _:
            low, high = draw.choice(_RANGES)
            return chr(draw.randrange(low, high)) * draw.choice((1, 1, 1, 2, 7))


def any_character(draw: random.Random) -> str:
    """Returns one character of all that Unicode has, assigned or not."""
    while True:
        character = chr(draw.randrange(sys.maxunicode + 1))
        if unicodedata.category(character) != "Cs":
            return character
