"""The text that models are calibrated on if none is given.

Half English, half fifteen other languages, with code, tables of numbers and conversations between:
made from the patterns of ``sentences.py``, always the same, about 160,000 characters. It knows
nothing of any benchmark. What matters for quantisation is which columns are large at all, and for
that the kind of text counts more than its sense.
"""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

from edgeinfer.calibration.sentences import (
    CHATS,
    CODE,
    ENGLISH,
    IDENTIFIERS,
    LANGUAGES,
    QUESTIONS,
    Language,
)
from edgeinfer.errors import UsageError

NAME = "edgeinfer-calibration-1"  # another number when the text changes
_SEED, _ROUNDS = 1, 95


@cache
def calibration_text() -> str:
    """Returns the text."""
    rng = random.Random(_SEED)
    parts: list[str] = []
    for number in range(_ROUNDS):
        parts.append(_paragraph(rng, ENGLISH, 7))
        parts.append(_paragraph(rng, LANGUAGES[number % len(LANGUAGES)], 5))
        match number % 4:
            case 0 | 2:
                parts.append(_code(rng))
            case 1:
                parts.append(_conversation(rng, CHATS[number // 4 % len(CHATS)]))
            case _:
                parts.append(_table(rng))
    return "\n\n".join(parts) + "\n"


def read_text(path: Path) -> str:
    """Reads a text file.

    Raises:
        UsageError: it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 at byte {error.start}") from None


def _paragraph(rng: random.Random, language: Language, sentences: int) -> str:
    patterns = rng.sample(language.patterns, min(sentences, len(language.patterns)))
    made = [_fill(rng, pattern, language) for pattern in patterns]
    return language.join.join(sentence[0].upper() + sentence[1:] for sentence in made)


def _fill(rng: random.Random, pattern: str, language: Language) -> str:
    n, d = rng.randrange(11, 2100), rng.randrange(2, 10)
    return pattern.format(
        name=rng.choice(language.names),
        place=rng.choice(language.places),
        thing=rng.choice(language.things),
        n=n,
        d=d,
        product=n * d,
    )


def _code(rng: random.Random) -> str:
    a, b = rng.sample(IDENTIFIERS, 2)
    return rng.choice(CODE).format(
        a=a, b=b, B=b.capitalize(), n=rng.randrange(10, 5000), d=rng.randrange(1, 9)
    )


def _conversation(rng: random.Random, form: tuple[str, str]) -> str:
    begin, turn = form
    turns = []
    for question, answer in rng.sample(QUESTIONS, 3):
        both = _fill(rng, question + "\0" + answer, ENGLISH).split("\0")
        turns.append(turn.format(question=both[0], answer=both[1]))
    return begin + "".join(turns)


def _table(rng: random.Random) -> str:
    columns = rng.sample(IDENTIFIERS, 3)
    lines = [f"| year | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    year = rng.randrange(1890, 2010)
    for row in range(6):
        values = (
            f"{rng.randrange(1, 10**6):,}",
            f"{rng.gauss(0, 40):.2f}",
            f"{rng.random():.1%}",
        )
        lines.append(f"| {year + row} | {' | '.join(values)} |")
    return "\n".join(lines)
