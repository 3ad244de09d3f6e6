"""JSON from a file that may be hostile: no depth, no duplicates, no surprises in numbers."""

from __future__ import annotations

import json
from typing import Any, NoReturn


def parse_json(octets: bytes) -> dict[str, Any]:
    """Parses a JSON object.

    Raises:
        ValueError: not valid JSON in UTF-8, not an object, a key that is there twice,
            nesting too deep, or a number that JSON does not have (NaN, 10^5000).
    """
    try:
        value = json.loads(
            octets.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key!r:.80} is there twice")
        found[key] = value
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")
