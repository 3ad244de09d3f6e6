"""Blocks of GGUF types taken apart: codes with their middle at 2 ** (bits - 1), scales, offsets.

The layouts are those of ggml (https://github.com/ggml-org/ggml, src/ggml-common.h).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.uint8]  # (rows, columns), one a byte
Floats = NDArray[np.float32]  # (rows, columns / block)


def _q4_0(data: NDArray[np.uint8]) -> tuple[Codes, Floats]:
    rows, _ = data.shape
    blocks = data.reshape(rows, -1, 18)
    low_and_high = [blocks[..., 2:] & 15, blocks[..., 2:] >> 4]
    return np.concatenate(low_and_high, axis=-1).reshape(rows, -1), _halves(blocks[..., :2])


def _q5_0(data: NDArray[np.uint8]) -> tuple[Codes, Floats]:
    rows, _ = data.shape
    blocks = data.reshape(rows, -1, 22)
    low = np.concatenate([blocks[..., 6:] & 15, blocks[..., 6:] >> 4], axis=-1)
    fifth: Codes = np.unpackbits(blocks[..., 2:6], axis=-1, bitorder="little")
    codes: Codes = (low | fifth << np.uint8(4)) + np.uint8(128 - 16)
    return codes.reshape(rows, -1), _halves(blocks[..., :2])


def _q8_0(data: NDArray[np.uint8]) -> tuple[Codes, Floats]:
    rows, _ = data.shape
    blocks = data.reshape(rows, -1, 34)
    return (blocks[..., 2:] ^ np.uint8(128)).reshape(rows, -1), _halves(blocks[..., :2])


def _q6_k(data: NDArray[np.uint8]) -> tuple[Codes, Floats]:
    """A super-block is two halves of 128: 64 bytes of low bits, 32 of the two high ones."""
    rows, _ = data.shape
    blocks = data.reshape(rows, -1, 210)
    low = blocks[..., :128].reshape(rows, -1, 2, 2, 32)  # half, columns of 32
    high = blocks[..., 128:192].reshape(rows, -1, 2, 1, 32)
    quarters = [
        (low & 15) | (high >> np.array([[0], [2]], np.uint8) & 3) << 4,
        (low >> 4) | (high >> np.array([[4], [6]], np.uint8) & 3) << 4,
    ]
    codes = np.concatenate(quarters, axis=-2) + np.uint8(128 - 32)
    scales = blocks[..., 192:208].view(np.int8) * _halves(blocks[..., 208:])[..., None]
    return codes.reshape(rows, -1), scales.astype(np.float32).reshape(rows, -1)


def _halves(octets: NDArray[np.uint8]) -> Floats:
    return np.ascontiguousarray(octets).view(np.float16)[..., 0].astype(np.float32)


def _q3_k(data: NDArray[np.uint8]) -> tuple[Codes, Floats]:
    """A super-block is 32 bytes of the highest bits, 64 of the two low ones, 12 of scales."""
    rows, _ = data.shape
    blocks = data.reshape(rows, -1, 110)
    shifts = np.arange(4, dtype=np.uint8)[:, None]
    low = blocks[..., 32:96].reshape(rows, -1, 2, 1, 32) >> 2 * shifts & 3
    high = blocks[..., None, :32] >> np.arange(8, dtype=np.uint8)[:, None] & 1
    levels = low.reshape(high.shape) | high << 2
    packed = blocks[..., 96:108]
    scales = np.concatenate([packed[..., :8] & 15, packed[..., :8] >> 4], axis=-1)
    scales |= (packed[..., None, 8:] >> 2 * shifts & 3).reshape(scales.shape) << 4
    steps = (scales.astype(np.int8) - 32) * _halves(blocks[..., 108:])[..., None]
    codes = (levels + 8 - 4).astype(np.uint8)
    return codes.reshape(rows, -1), steps.astype(np.float32).reshape(rows, -1)


def _q4_1(data: NDArray[np.uint8]) -> tuple[Codes, Floats, Floats]:
    rows, _ = data.shape
    blocks = data.reshape(rows, -1, 20)
    codes = np.concatenate([blocks[..., 4:] & 15, blocks[..., 4:] >> 4], axis=-1)
    scales = _halves(blocks[..., :2])
    return codes.reshape(rows, -1), scales, _halves(blocks[..., 2:4]) + 8 * scales


def _q4_k(data: NDArray[np.uint8]) -> tuple[Codes, Floats, Floats]:
    """A super-block is 8 blocks; scales and minima have 6 bits each, 12 bytes together."""
    rows, _ = data.shape
    blocks = data.reshape(rows, -1, 144)
    packed = blocks[..., 4:16].reshape(rows, -1, 3, 4)
    first, second, rest = packed[..., 0, :], packed[..., 1, :], packed[..., 2, :]
    scales = np.concatenate([first & 63, rest & 15 | first >> 6 << 4], axis=-1)
    minima = np.concatenate([second & 63, rest >> 4 | second >> 6 << 4], axis=-1)
    octets = blocks[..., 16:].reshape(rows, -1, 4, 1, 32)
    codes = np.concatenate([octets & 15, octets >> 4], axis=-2)
    steps = (scales * _halves(blocks[..., :2])[..., None]).reshape(rows, -1)
    least = (minima * _halves(blocks[..., 2:4])[..., None]).reshape(rows, -1)
    return codes.reshape(rows, -1), steps, 8 * steps - least


# Quant type -> codes and scales that hold its values.
EXACT_BLOCKS: Mapping[str, Callable[[NDArray[np.uint8]], tuple[Codes, Floats]]] = {
    "q3_k": _q3_k,
    "q4_0": _q4_0,
    "q5_0": _q5_0,
    "q6_k": _q6_k,
    "q8_0": _q8_0,
}
# Quant type -> codes, scales, and the value of the code in the middle.
OFFSET_BLOCKS: Mapping[str, Callable[[NDArray[np.uint8]], tuple[Codes, Floats, Floats]]] = {
    "q4_1": _q4_1,
    "q4_k": _q4_k,
}
