"""Codes and scales with a small squared error, in MLC's format as every runtime reads it.

MLC LLM's encoder leaves one code unused and gives every scale a positive sign. With all codes
the range is lopsided, -7 to 8 steps of 4 bits; a scale of either sign turns the longer side to
the larger weight, as GGUF's Q4_0 does. Q4_0 *is* this format with the codes counted from the
other end: value ``(q - 8) * d`` is ``((15 - q) - 7) * -d``. So 4-bit groups are searched by the
native encoder of Q4_0, and weights that are Q4_0 already keep their values bit for bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeinfer.formats.mlc.quants import Quant
from edgeinfer.quant import encode, get
from edgeinfer_converters.mlc.packing import Codes, Floats, Words, pack, padded, rounded, unpack

Q4_0 = "q4_0"
_Q4_0_BLOCK = np.dtype([("scale", "<f2"), ("codes", "u1", 16)])  # code i low, i + 16 high
_Q4_0_LAST = 15

# Parts of the largest weight that the last code may stand for. More of them, or further apart, gain
# less than a thousandth of the error (normal, Laplace and Student weights).
_TRIED = np.linspace(0.75, 1.05, 6)
# The fit of least error leaves groups short, which costs a model more than error does: so much of
# what is missing is given back, as native/quant/encode/scale.inl does, and at most as there.
_GIVEN_BACK, _MOST_LONGER = 0.7, 2
_BLOCK_GROUPS = 2048  # searched at a time, so that they stay in the processor's cache


def encode_searched(values: Floats, quant: Quant, *, threads: int) -> tuple[Words, Floats]:
    """Chooses codes and scales that bring the squared error down.

    Args:
        values: (rows, columns).
        quant: the format.
        threads: native threads.

    Returns:
        words (rows, words) and scales (rows, groups), rounded to what will be stored.
    """
    groups = padded(values, quant)
    if quant.bits == 4:
        codes, scales = _by_q4_0(groups, threads)
    else:
        codes, scales = _by_grid(groups, quant)
    if quant.dtype != "float16" or quant.bits != 4:
        scales = rounded(scales, scale_type(quant))
    return pack(codes.reshape(len(values), -1), quant), scales


def scale_type(quant: Quant) -> str:
    """The float type that searched scales are rounded to: float32 ones are stored in 16 bits."""
    return "bfloat16" if quant.dtype == "float32" else quant.dtype


def from_q4_0(blocks: NDArray[np.uint8], quant: Quant) -> tuple[Words, Floats]:
    """Turns rows of Q4_0 blocks, (rows, bytes), into the same values of a 4-bit format."""
    codes, scales = _of_q4_0(blocks)
    return pack(codes, quant), scales


def to_q4_0(words: Words, scales: Floats, quant: Quant) -> NDArray[np.uint8]:
    """Undoes ``from_q4_0``: rows of blocks, (rows, bytes).

    The scales must be float16 values, which those of "q4f16" formats are.
    """
    rows, groups = scales.shape
    codes = _Q4_0_LAST - unpack(words, quant).reshape(rows, groups, 32)
    blocks = np.empty((rows, groups), _Q4_0_BLOCK)
    blocks["scale"] = -scales
    blocks["codes"] = codes[:, :, :16] | codes[:, :, 16:] << 4
    return blocks.view(np.uint8).reshape(rows, -1)


def _of_q4_0(blocks: NDArray[np.uint8]) -> tuple[Codes, Floats]:
    rows = len(blocks)
    laid = np.ascontiguousarray(blocks).view(_Q4_0_BLOCK).reshape(rows, -1)
    nibbles = laid["codes"]
    codes = np.concatenate([nibbles & 15, nibbles >> 4], axis=-1)
    return (_Q4_0_LAST - codes).reshape(rows, -1), -laid["scale"].astype(np.float32)


def _by_q4_0(groups: Floats, threads: int) -> tuple[Codes, Floats]:
    flat = groups.reshape(len(groups), -1)
    # With an importance the encoder searches; all columns count the same.
    importance = np.ones(flat.shape[1], np.float32)
    return _of_q4_0(encode(get(Q4_0), flat, threads=threads, importance=importance))


def _by_grid(groups: Floats, quant: Quant) -> tuple[Codes, Floats]:
    flat = groups.reshape(-1, quant.group)
    codes = np.empty(flat.shape, np.uint8)
    scales = np.empty(len(flat), np.float32)
    for first in range(0, len(flat), _BLOCK_GROUPS):
        part = slice(first, first + _BLOCK_GROUPS)
        codes[part], scales[part] = _best_of_grid(flat[part], quant)
    return codes, scales.reshape(groups.shape[:2])


def _best_of_grid(groups: Floats, quant: Quant) -> tuple[Codes, Floats]:
    """Tries scales of both signs and fits the best codes' scale by least squares.

    For given codes q the best scale is q.x/q.q and leaves the error x.x - (q.x)^2/q.q. It is then
    stretched a little.
    """
    low, high = -quant.offset, (1 << quant.bits) - 1 - quant.offset
    extreme = groups[np.arange(len(groups)), np.abs(groups).argmax(1)][:, None]
    best_gain = np.zeros(len(groups), np.float32)
    best_codes = np.zeros(groups.shape, np.float32)
    best_scale = np.zeros(len(groups), np.float32)
    for end in (high, low):
        for tried in _TRIED:
            inverse = np.divide(
                np.float32(end),
                extreme * np.float32(tried),
                where=extreme != 0,
                out=np.zeros_like(extreme),
            )
            codes = np.clip(np.rint(groups * inverse), low, high)
            along = np.einsum("gi,gi->g", codes, groups)
            square = np.maximum(np.einsum("gi,gi->g", codes, codes), np.float32(1))
            gain = along * along / square
            better = gain > best_gain
            best_gain[better] = gain[better]
            best_codes[better] = codes[better]
            best_scale[better] = (along / square)[better]
    energy = np.einsum("gi,gi->g", groups, groups)
    longer = np.divide(energy, best_gain, out=np.ones_like(energy), where=best_gain > 0)
    best_scale *= 1 + np.float32(_GIVEN_BACK) * (np.minimum(longer, _MOST_LONGER) - 1)
    return (best_codes + quant.offset).astype(np.uint8), best_scale
