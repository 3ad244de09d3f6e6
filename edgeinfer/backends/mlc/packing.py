"""Reads a folder's tensors and lays them out as a library's kernels read them."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeinfer.backends.mlc.parameters import TILE, Parameter
from edgeinfer.formats.mlc.folder import MlcFolder, Stored

ALIGNMENT = 64  # bytes; compiled code loads whole registers
_LARGE = 4 << 20
_DTYPES = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2", "uint32": "<u4"}
_WIDER = 4  # what a code of three bits is greater as one of four


def aligned(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Returns zeros that compiled code takes as they are."""
    kind = np.dtype(dtype)
    size = prod(shape) * kind.itemsize
    if size >= _LARGE:  # pages of their own, which go back to the system when nobody has them
        pages = mmap.mmap(-1, size)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):  # a kernel without them
                pages.madvise(mmap.MADV_HUGEPAGE)
        return np.frombuffer(pages, kind).reshape(shape)
    octets = np.zeros(size + ALIGNMENT, np.uint8)
    start = -octets.ctypes.data % ALIGNMENT
    return octets[start : start + size].view(kind).reshape(shape)


def packed(folder: MlcFolder, parameters: Iterable[Parameter], threads: int) -> list[NDArray[Any]]:
    """Returns the parameters of a library, in order, from a folder's files."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda parameter: _packed(folder, parameter), parameters))


def _packed(folder: MlcFolder, parameter: Parameter) -> NDArray[Any]:
    parts = [
        _read(folder.path, folder.tensors[name], transposed=_is_transposed(folder, name))
        for name in parameter.sources
    ]
    found = aligned(parameter.shape, parameter.dtype)
    if parameter.kind in ("vector", "bias"):
        at = 0
        for part in parts:
            found[at : at + len(part)] = _widened(part)
            at += len(part)
        return found
    at = 0
    for part in parts:
        if parameter.kind == "codes":
            part = _in_four_bits(part, folder.quant.bits).view(np.int32)
        _put(found, part, at)
        at += len(part)
    return found


def _put(tiles: NDArray[Any], rows: NDArray[Any], at: int) -> None:
    """Puts rows into tiles, from a row on; a tile has them side by side."""
    head = min(-at % TILE, len(rows))  # rows that fill a tile begun before
    if head:
        tiles[at // TILE, :, at % TILE : at % TILE + head] = rows[:head].T
    whole = (len(rows) - head) // TILE
    first = (at + head) // TILE
    body = rows[head : head + whole * TILE].reshape(whole, TILE, rows.shape[1])
    tiles[first : first + whole] = body.transpose(0, 2, 1)
    tail = rows[head + whole * TILE :]
    if len(tail):
        tiles[first + whole, :, : len(tail)] = tail.T


def _read(path: Path, stored: Stored, *, transposed: bool) -> NDArray[Any]:
    dtype = "bfloat16" if stored.halved else stored.dtype
    found: NDArray[Any] = np.memmap(
        path / stored.file, _DTYPES[dtype], "r", stored.offset, stored.shape
    )
    return found.T if transposed else found


def _is_transposed(folder: MlcFolder, name: str) -> bool:
    coded = name.endswith((".q_weight", ".q_scale"))
    return coded and folder.quant.transposed and not name.startswith(_embedding(folder))


def _embedding(folder: MlcFolder) -> str:
    from edgeinfer.formats.mlc.families import FAMILIES

    family = FAMILIES[folder.hf_class]
    return family.prefix + family.model[("token_embd",)] + "."


def _widened(vector: NDArray[Any]) -> NDArray[np.float32]:
    if vector.dtype == np.uint16:  # bfloat16's bits
        return (vector.astype(np.uint32) << 16).view(np.float32)
    return vector.astype(np.float32)


def _in_four_bits(words: NDArray[np.uint32], bits: int) -> NDArray[np.uint32]:
    """Words of eight codes of four bits, from words of ten codes of three."""
    if bits == 4:
        return np.ascontiguousarray(words)
    rows = len(words)
    shifts = np.arange(32 // bits, dtype=np.uint32) * np.uint32(bits)
    codes = words[:, :, None] >> shifts & np.uint32((1 << bits) - 1)
    eights = codes.reshape(rows, -1, 8) + np.uint32(_WIDER)
    places = np.arange(8, dtype=np.uint32) * np.uint32(4)
    found: NDArray[np.uint32] = np.bitwise_or.reduce(eights << places, axis=2)
    return found
