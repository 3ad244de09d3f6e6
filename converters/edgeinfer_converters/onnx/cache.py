"""The cache of an exported graph: floats, or 8 bits with a scale for each channel of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeinfer.errors import UsageError, known_names

Floats = NDArray[np.float32]
CacheScales = Sequence[tuple[Floats, Floats]]

TYPES = ("f32", "f16", "int8")


@dataclass(frozen=True, slots=True)
class Cache:
    """The type of cached keys and values; ``scales`` of int8 are (keys', values') for each layer.

    A scale is for a channel: float32 (kv_heads * head_dim,).
    """

    type: str
    scales: CacheScales = ()


def check_type(cache: str, floats: str) -> None:
    """Checks that a graph of such floats can have a cache.

    Raises:
        UsageError: it cannot.
    """
    if cache not in TYPES:
        raise UsageError(f"no cache of type {cache!r}", hint=known_names(cache, TYPES))
    if floats == "f16" and cache == "f32":
        raise UsageError("a graph of f16 has a cache of f16 or int8", hint="use -q f32")
