"""The components of a tokenizer.json: normalizers and pre-tokenizers, which may be sequences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flattened(component: Any, members: str) -> list[Mapping[str, Any]]:
    """Flattens a component.

    Args:
        component: an object with a "type", or None.
        members: the key under which a sequence has its own.
    """
    if component is None:
        return []
    if component.get("type") == "Sequence":
        return [
            part for member in component.get(members, []) for part in flattened(member, members)
        ]
    return [component]
