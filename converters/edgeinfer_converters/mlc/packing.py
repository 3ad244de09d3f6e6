"""Codes in words, floats in MLC's float types, and codes chosen as MLC LLM's converter does.

Every operation of that converter is rounded to the model's float type; so are those here, which
gives the same words and scales, bit by bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeinfer.formats.mlc.quants import Quant

Floats = NDArray[np.float32]
Codes = NDArray[np.uint8]
Words = NDArray[np.uint32]

# Types of records; numpy has no bfloat16, so that its bits are handled instead.
STORED: Mapping[str, Any] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
    "uint32": np.dtype("<u4"),
}


def bfloat16_bits(values: Floats) -> NDArray[np.uint16]:
    """Rounds finite values to the nearest bfloat16, ties to even; returns the bits."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + ((bits >> 16 & 1) + np.uint32(0x7FFF))) >> 16).astype(np.uint16)


def widened(bits: NDArray[np.uint16]) -> Floats:
    """Returns the values of bfloat16 bits."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def stored(values: Floats, dtype: str) -> NDArray[Any]:
    """Rounds values to a float type and returns them as they lie in a file."""
    if dtype == "bfloat16":
        return bfloat16_bits(values)
    return values.astype(STORED[dtype])


def rounded(values: Floats, dtype: str) -> Floats:
    """Rounds values to a float type; they stay float32."""
    kept = stored(values, dtype)
    return widened(kept) if dtype == "bfloat16" else kept.astype(np.float32)


def padded(values: Floats, quant: Quant) -> Floats:
    """Fills rows up to whole groups with zeros and returns (rows, groups, group)."""
    rows, columns = values.shape
    groups = quant.groups(columns)
    if groups * quant.group != columns:
        filled = np.zeros((rows, groups * quant.group), values.dtype)
        filled[:, :columns] = values
        values = filled
    return values.reshape(rows, groups, quant.group)


def pack(codes: Codes, quant: Quant) -> Words:
    """Packs codes (rows, columns), whole groups of them, the first in the lowest bits."""
    rows = codes.shape[0]
    lanes = codes.reshape(rows, -1, quant.codes_per_word)
    words = np.zeros(lanes.shape[:2], np.uint32)
    for lane in range(quant.codes_per_word):
        words |= lanes[:, :, lane].astype(np.uint32) << np.uint32(lane * quant.bits)
    return words


def unpack(words: Words, quant: Quant) -> Codes:
    """Undoes ``pack``: words (rows, words) -> codes (rows, columns in whole groups)."""
    shifts = np.arange(quant.codes_per_word, dtype=np.uint32) * np.uint32(quant.bits)
    lanes = words[:, :, None] >> shifts & np.uint32((1 << quant.bits) - 1)
    return lanes.astype(np.uint8).reshape(words.shape[0], -1)


def encode_as_mlc(values: Floats, quant: Quant) -> tuple[Words, Floats]:
    """Chooses scales and codes as MLC LLM's converter: the largest weight gets the last code.

    Codes are 0 to twice the offset: of the 16 that four bits have, one is never used.

    Returns:
        words (rows, words) and scales (rows, groups), not yet rounded if the type is float32.
    """
    rows, columns = values.shape
    offset = np.float32(quant.offset)

    def step(result: Floats) -> Floats:
        """Rounds as an operation in the model's type would; bfloat16's are in float32."""
        return rounded(result, "float16") if quant.dtype == "float16" else result

    # A float16 operation is the float32 one, rounded: twice 11 bits and 2 more fit in 24.
    groups = padded(rounded(values, quant.dtype), quant)
    scales = rounded(np.abs(groups).max(-1) / offset, quant.dtype)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        codes = np.rint(step(step(groups / scales[:, :, None]) + offset))
    codes = np.where(scales[:, :, None] > 0, codes, offset)  # all weights are zero
    whole = np.clip(codes, 0, 2 * offset).astype(np.uint8).reshape(rows, -1)
    whole[:, columns:] = 0
    return pack(whole, quant), scales
