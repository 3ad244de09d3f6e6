"""Kernels that take the tokens of a step one by one: norms, activations, sums, quantisation.

``rows`` is 1 for a step of one token, None for any number; then tokens are shared among threads.
"""

from __future__ import annotations

import math
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from edgeinfer.arch.config import Activation
from edgeinfer.backends.mlc.compiler.kernels.lanes import (
    LANES,
    argument,
    count,
    each,
    floats,
    kernel,
    largest,
    load,
    local,
    maximum,
    number,
    sigmoid,
    splat,
    store,
    summed,
    tanh,
    total,
)

WORD = 8  # codes in a word
_MOST = 127.0  # an activation's largest code


def rms_norm(width: int, eps: float, rows: int | None) -> Any:
    """Norms rows: x (n, width), weight (width,) -> (n, width)."""

    def body() -> None:
        n = count("n", rows)
        x, weight = argument("x", (n, width)), argument("weight", (width,))
        y = argument("y", (n, width))
        with each(n, rows) as i:
            squares = local((LANES,))
            store(squares, number(0.0), 0)
            with T.serial(width // LANES) as k:
                value = load(x, i, k * LANES)
                store(squares, load(squares, 0) + value * value, 0)
            scale = local((1,))
            mean = total(squares) * T.float32(1 / width)
            T.buffer_store(scale, T.float32(1) / T.sqrt(mean + T.float32(eps)), [0])
            with T.serial(width // LANES) as k:
                value = load(x, i, k * LANES) * splat(scale[0])
                store(y, value * load(weight, k * LANES), i, k * LANES)

    return kernel(body)


def add(width: int, scale: float, rows: int | None) -> Any:
    """Adds rows: x (n, width), y (n, width) -> x + scale * y."""

    def body() -> None:
        n = count("n", rows)
        x, y, z = (argument(name, (n, width)) for name in "xyz")
        with each(n, rows) as i, T.serial(width // LANES) as k:
            value = load(y, i, k * LANES)
            if scale != 1.0:
                value = value * number(scale)
            store(z, load(x, i, k * LANES) + value, i, k * LANES)

    return kernel(body)


def gated(width: int, activation: Activation, rows: int | None) -> Any:
    """Activates a gate: gate and up side by side (n, 2 width) -> act(gate) * up (n, width)."""

    def body() -> None:
        n = count("n", rows)
        x, y = argument("x", (n, 2 * width)), argument("y", (n, width))
        with each(n, rows) as i, T.serial(width // LANES) as k:
            gate, up = load(x, i, k * LANES), load(x, i, k * LANES + width)
            inner = gate
            if activation is Activation.GELU_TANH:  # (1 + tanh u) / 2 is sigmoid(2 u)
                cubic = gate + gate * gate * gate * number(0.044715)
                inner = cubic * number(2 * math.sqrt(2 / math.pi))
            store(y, gate * sigmoid(inner) * up, i, k * LANES)

    return kernel(body)


def capped(width: int, cap: float, scale: float, rows: int | None) -> Any:
    """Scales and caps logits softly: cap * tanh(scale * x / cap), without a cap if that is 0."""

    def body() -> None:
        n = count("n", rows)
        x, y = argument("x", (n, width)), argument("y", (n, width))
        with each(n, rows) as i, T.serial(width // LANES) as k:
            value = load(x, i, k * LANES) * number(scale)
            if cap:
                value = tanh(value * number(1 / cap)) * number(cap)
            store(y, value, i, k * LANES)

    return kernel(body)


def quantise(width: int, group: int, offset: int, rows: int | None, together: int) -> Any:
    """Rounds rows to int8, each group by its own scale, in the order that words have codes.

    x (n, width) -> four activations a word (blocks, groups * group / 4, together) int32, scales
    (blocks, groups, together), and -offset times the sum of each group (blocks, groups, together)
    int32, which is where products begin. A block has ``together`` tokens side by side, the last
    one what lay there before where tokens are missing.

    A word of eight codes has the even ones in the low halves of its bytes and the odd ones in
    the high halves; so the even activations come first, then the odd ones.
    """
    groups, words = -(-width // group), group // WORD
    order = [*range(0, WORD, 2), *range(1, WORD, 2)]

    def body() -> None:
        n, blocks = count("n", rows), count("blocks", rows)
        x = argument("x", (n, width))
        codes = argument("codes", (blocks, groups * group // 4, together), "int32")
        scales = argument("scales", (blocks, groups, together))
        zeros = argument("zeros", (blocks, groups, together), "int32")

        def encode(i: Any, g: Any, present: int) -> None:
            values = [T.bind(load(x, i, g * group + w * WORD, lanes=WORD)) for w in range(present)]
            peaks = [tirx.abs(value) for value in values]
            while len(peaks) > 1:
                peaks = [maximum(*peaks[:2]), *peaks[2:]]
            top = T.bind(largest(peaks[0], WORD))
            block, place = i // together, i % together
            T.buffer_store(scales, top * T.float32(1 / _MOST), [block, g, place])
            back = T.bind(tirx.Select(top > T.float32(0), T.float32(_MOST) / top, T.float32(0)))
            sums = splat(T.int32(0), WORD)
            for w in range(words):
                evens: Any = T.int32(0)
                odds: Any = T.int32(0)
                if w < present:
                    whole = T.bind(T.Cast("int32x8", T.nearbyint(values[w] * splat(back, WORD))))
                    sums = sums + whole
                    mixed = tirx.Shuffle([T.Cast("int8x8", whole)], order)
                    both = T.bind(T.reinterpret("int32x2", mixed))
                    evens, odds = (tirx.Shuffle([both], [half]) for half in range(2))
                at = (g * words + w) * 2
                T.buffer_store(codes, evens, [block, at, place])
                T.buffer_store(codes, odds, [block, at + 1, place])
            T.buffer_store(zeros, summed(sums, WORD) * T.int32(-offset), [block, g, place])

        with each(n, rows) as i:
            with T.serial(width // group) as g:
                encode(i, g, words)
            if width % group:
                encode(i, width // group, width % group // WORD)

    return kernel(body)


def embed(width: int, vocabulary: int, dtype: str, scale: float, rows: int | None) -> Any:
    """Looks rows up in a table of floats: ids (n,), (tiles, width, 16) -> (n, width)."""

    def body() -> None:
        n = count("n", rows)
        ids = argument("ids", (n,), "int32")
        table = argument("table", (-(-vocabulary // LANES), width, LANES), dtype)
        y = argument("y", (n, width))
        with each(n, rows) as i, T.serial(width) as k:
            row = T.Cast("int64", ids[i])
            value = floats(table[row // LANES, k, row % LANES], 1, dtype=dtype)
            T.buffer_store(y, value * T.float32(scale), [i, k])

    return kernel(body)


def embed_coded(
    width: int,
    vocabulary: int,
    group: int,
    offset: int,
    dtype: str,
    scale: float,
    rows: int | None,
) -> Any:
    """Looks rows up in a table of codes, packed as ``matrices.linear_coded`` has it."""
    groups, words = -(-width // group), group // WORD

    def body() -> None:
        n, tiles = count("n", rows), -(-vocabulary // LANES)
        ids = argument("ids", (n,), "int32")
        codes = argument("table", (tiles, groups * words, LANES), "int32")
        scales = argument("scales", (tiles, groups, LANES), dtype)
        y = argument("y", (n, width))
        with each(n, rows) as i, T.serial(width // WORD) as word:
            row = T.Cast("int64", ids[i])
            tile, lane = row // LANES, row % LANES
            factor = floats(scales[tile, word // words, lane], 1, dtype=dtype) * T.float32(scale)
            for k in range(WORD):
                code = codes[tile, word, lane] >> T.int32(4 * k) & T.int32(15)
                value = T.Cast("float32", code - T.int32(offset)) * factor
                T.buffer_store(y, value, [i, word * WORD + k])

    return kernel(body)
