"""Byte counts as people write them."""

from __future__ import annotations

import re

from edgeinfer.errors import UsageError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12} | {
    f"{letter}i": 1 << 10 * power for power, letter in enumerate("kmgt", 1)
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", re.IGNORECASE)


def parse_bytes(text: str | int) -> int:
    """Returns the bytes of "2GiB", "1.5 GB", "512M" or "1000000".

    KiB, MiB, ... are powers of 1024; KB, MB, ... (the B may be left out) powers of 1000.

    Raises:
        UsageError: the text is no size, or the size is not positive.
    """
    match = _SIZE.fullmatch(str(text))
    unit = match[2].lower() if match else ""
    if match is None or unit not in _UNITS:
        raise UsageError(f"{text!r} is no size", hint="write it as 2GiB, 512MiB or 1.5GB")
    count = int(float(match[1]) * _UNITS[unit]) if unit else int(float(match[1]))
    if count <= 0:
        raise UsageError(f"{text!r} is not a positive size")
    return count


def format_bytes(count: float) -> str:
    """Returns a byte count for people: ``92.1 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
