"""Products of activations and matrices.

Matrices lie in tiles of 16 rows, one in each lane. A tile of codes has a word of eight codes of
each row, then the next word; a tile of floats has a column, then the next. So a tile is read
straight through, and its sums are vectors that never are added up across lanes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from edgeinfer.backends.mlc.compiler.isa import Isa
from edgeinfer.backends.mlc.compiler.kernels.lanes import (
    LANES,
    argument,
    count,
    floats,
    kernel,
    load,
    local,
    number,
    splat,
    store,
)
from edgeinfer.backends.mlc.compiler.kernels.rows import WORD

_NIBBLES = 0x0F0F0F0F
_TILES = 8  # that a thread takes at once, at most
_FLOAT_TOKENS = 4


def linear_coded(
    rows: int,
    columns: int,
    *,
    group: int,
    dtype: str,
    bias: bool,
    isa: Isa,
    tokens: int | None,
) -> Any:
    """Multiplies with a matrix of 4-bit codes.

    Arguments: what ``rows.quantise`` gives; codes (tiles, groups * words, 16) int32; scales
    (tiles, groups, 16); a bias (tiles * 16) if there is one -> (n, tiles * 16).
    """
    tiles, groups, words = -(-rows // LANES), -(-columns // group), group // WORD

    def body() -> None:
        n, blocks, together = count("n", tokens), count("blocks", tokens), tokens or isa.tokens
        x = argument("x", (blocks, groups * group // 4, together), "int32")
        x_scales = argument("x_scales", (blocks, groups, together))
        x_zeros = argument("x_zeros", (blocks, groups, together), "int32")
        codes = argument("codes", (tiles, groups * words, LANES), "int32")
        scales = argument("scales", (tiles, groups, LANES), dtype)
        added = argument("bias", (tiles * LANES,)) if bias else None
        y = argument("y", (n, tiles * LANES))

        def inner(tile: Any, block: Any, many: int, sums: Any) -> None:
            lanes = isa.lanes
            for part in range(0, LANES, lanes):
                for i in range(many):
                    first = number(0.0, lanes)
                    if added is not None:
                        first = load(added, tile * LANES + part, lanes=lanes)
                    store(sums, first, i * lanes, lanes=lanes)
                with T.serial(groups) as g:
                    scale = load(scales, tile, g, part, lanes=lanes)
                    scale = T.bind(floats(scale, lanes, dtype=dtype))
                    halves = []
                    for w in range(words):
                        word = load(codes, tile, g * words + w, part, lanes=lanes)
                        mask = splat(T.int32(_NIBBLES), lanes)
                        halves.append(T.bind(word & mask))
                        halves.append(T.bind((word >> splat(T.int32(4), lanes)) & mask))
                    for i in range(many):
                        whole = splat(x_zeros[block, g, i], lanes)
                        for k, half in enumerate(halves):
                            activations = splat(x[block, g * words * 2 + k, i], lanes)
                            whole = isa.dot(whole, half, activations)
                        factor = scale * splat(x_scales[block, g, i], lanes)
                        value = T.Cast(f"float32x{lanes}", whole) * factor
                        at = i * lanes
                        store(sums, load(sums, at, lanes=lanes) + value, at, lanes=lanes)
                for i in reversed(range(many)):
                    value = load(sums, i * lanes, lanes=lanes)
                    row = _row(n, block, i, many)
                    store(y, value, row, tile * LANES + part, lanes=lanes)

        _tiled(tiles, n, tokens, isa.tokens, isa.lanes, inner)

    return kernel(body)


def linear_float(
    rows: int, columns: int, *, dtype: str, bias: bool, isa: Isa, tokens: int | None
) -> Any:
    """Multiplies x (n, columns) with a matrix of floats (tiles, columns, 16) -> (n, tiles * 16)."""
    tiles = -(-rows // LANES)

    def body() -> None:
        n = count("n", tokens)
        x = argument("x", (n, columns))
        values = argument("values", (tiles, columns, LANES), dtype)
        added = argument("bias", (tiles * LANES,)) if bias else None
        y = argument("y", (n, tiles * LANES))

        def inner(tile: Any, block: Any, many: int, sums: Any) -> None:
            for i in range(many):
                first = number(0.0) if added is None else load(added, tile * LANES)
                store(sums, first, i * LANES)
            with T.serial(columns) as k:
                column = floats(load(values, tile, k, 0), dtype=dtype)
                for i in range(many):
                    value = load(sums, i * LANES) + column * splat(x[_row(n, block, i, many), k])
                    store(sums, value, i * LANES)
            for i in reversed(range(many)):
                store(y, load(sums, i * LANES), _row(n, block, i, many), tile * LANES)

        _tiled(tiles, n, tokens, _FLOAT_TOKENS, LANES, inner)

    return kernel(body)


def _tiled(
    tiles: int,
    n: Any,
    tokens: int | None,
    most: int,
    lanes: int,
    inner: Callable[[Any, Any, int, Any], None],
) -> None:
    """Shares tiles among threads, and multiplies each with the tokens, ``most`` at a time."""
    together = next(size for size in range(min(_TILES, tiles), 0, -1) if tiles % size == 0)
    many = 1 if tokens == 1 else most
    with T.parallel(tiles // together) as task:
        sums = local((many * lanes,))
        with T.serial(together) as within:
            tile = task * together + within
            if tokens == 1:
                inner(tile, 0, 1, sums)
                return
            with T.serial((n + (most - 1)) // most) as block:
                inner(tile, block, most, sums)


def _row(n: Any, block: Any, i: int, many: int) -> Any:
    """A token of a block; the last block may reach beyond the last token, which stands in.

    So results are stored backwards: its own comes after those of what is not there.
    """
    return 0 if many == 1 else tirx.Min(block * many + i, n - 1)
