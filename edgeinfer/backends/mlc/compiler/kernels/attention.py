"""Attention over pages of cached keys and values.

A page has 16 positions of all layers: (pages, layers, 2, heads, 16 * lanes). Its keys lie with
positions side by side, so that scores are vectors of 16 positions; its values lie with the lanes
of a position side by side. A sequence has a row of page numbers in ``tables``.
"""

from __future__ import annotations

import math
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from edgeinfer.arch.config import ModelConfig, QkNorm
from edgeinfer.backends.mlc.compiler.kernels.lanes import (
    LANES,
    LOWEST,
    argument,
    count,
    each,
    exp,
    floats,
    kernel,
    largest,
    load,
    local,
    maximum,
    number,
    splat,
    store,
    tanh,
    total,
    widest,
)

PAGE = LANES  # positions
_TOGETHER = 4  # heads that share keys and are computed at once, at most
_KEYS = 8  # lanes of keys multiplied in a row


def cache_shape(config: ModelConfig, pages: Any) -> tuple[Any, ...]:
    """The shape of all pages."""
    return (pages, config.layers, 2, config.kv_heads, PAGE * config.head_dim)


def angles(pairs: int, magnitude: float, rows: int | None) -> Any:
    """Cosines and sines: positions (n,), frequencies (pairs,) -> (n, pairs) each."""

    def body() -> None:
        n = count("n", rows)
        positions = argument("positions", (n,), "int32")
        frequencies = argument("frequencies", (pairs,))
        cos, sin = argument("cos", (n, pairs)), argument("sin", (n, pairs))
        with each(n, rows) as i, T.serial(pairs) as k:
            angle = T.Cast("float32", positions[i]) * frequencies[k]
            T.buffer_store(cos, T.cos(angle) * T.float32(magnitude), [i, k])
            T.buffer_store(sin, T.sin(angle) * T.float32(magnitude), [i, k])

    return kernel(body)


def rotate(config: ModelConfig, pairs: int, dtype: str, rows: int | None) -> Any:
    """Norms and turns queries and keys, and puts keys and values into their pages.

    Arguments: queries, keys and values side by side (n, ...); weights of the norms, where there
    are any; cosines and sines (n, pairs), where anything turns; slots (n,), page * 16 + position;
    the cache; the layer -> queries (n, heads * lanes); the cache, changed in place.
    """
    dim, heads, kv_heads = config.head_dim, config.heads, config.kv_heads
    queries, keys = heads * dim, kv_heads * dim
    normed, whole = config.qk_norm is not QkNorm.NONE, config.qk_norm is QkNorm.FULL
    lanes = widest(dim)

    def body() -> None:
        n, pages = count("n", rows), T.int64()
        qkv = argument("qkv", (n, _padded(queries + 2 * keys)))
        norms = [
            argument(name, (size if whole else dim,))
            for name, size in (("q_norm", queries), ("k_norm", keys))
            if normed
        ]
        cos = argument("cos", (n, pairs)) if pairs else None
        sin = argument("sin", (n, pairs)) if pairs else None
        slots = argument("slots", (n,), "int32")
        cache = argument("cache", cache_shape(config, pages), dtype)
        layer = T.arg("layer", T.int64())
        out = argument("out", (n, queries))

        def scale_of(i: Any, first: Any, size: int, into: Any) -> None:
            squares = local((LANES,))
            store(squares, number(0.0), 0)
            with T.serial(size // LANES) as k:
                value = load(qkv, i, first + k * LANES)
                store(squares, load(squares, 0) + value * value, 0)
            mean = total(squares) * T.float32(1 / size)
            T.buffer_store(into, T.float32(1) / T.sqrt(mean + T.float32(config.norm_eps)), [0])

        def turned(i: Any, head: Any, first: int, norm: Any, scale: Any, into: Any) -> None:
            """Puts a head, normed and turned, into a local buffer."""
            begin = head * dim + first
            if norm is not None and not whole:
                scale_of(i, begin, dim, scale)
            with T.serial(dim // lanes) as k:
                value = load(qkv, i, begin + k * lanes, lanes=lanes)
                if norm is not None:
                    weight = load(norm, (head * dim if whole else 0) + k * lanes, lanes=lanes)
                    value = value * splat(scale[0], lanes) * weight
                store(into, value, k * lanes, lanes=lanes)
            if not pairs:
                return
            step = widest(pairs)
            with T.serial(pairs // step) as k:
                a = load(into, k * step, lanes=step)
                b = load(into, k * step + pairs, lanes=step)
                c, s = load(cos, i, k * step, lanes=step), load(sin, i, k * step, lanes=step)
                both = local((2 * step,))
                store(both, a * c - b * s, 0, lanes=step)
                store(both, b * c + a * s, step, lanes=step)
                store(into, load(both, 0, lanes=step), k * step, lanes=step)
                store(into, load(both, step, lanes=step), k * step + pairs, lanes=step)

        with each(n, rows) as i:
            page, slot = T.Cast("int64", slots[i] // PAGE), T.Cast("int64", slots[i] % PAGE)
            scale, head_values = local((1,)), local((dim,))
            q_norm, k_norm = norms or (None, None)
            if whole:
                scale_of(i, 0, queries, scale)
            with T.serial(heads) as head:
                turned(i, head, 0, q_norm, scale, head_values)
                with T.serial(dim // lanes) as k:
                    value = load(head_values, k * lanes, lanes=lanes)
                    store(out, value, i, head * dim + k * lanes, lanes=lanes)
            if whole:
                scale_of(i, queries, keys, scale)
            with T.serial(kv_heads) as head:
                turned(i, head, queries, k_norm, scale, head_values)
                with T.serial(dim) as k:
                    value = T.Cast(dtype, head_values[k])
                    T.buffer_store(cache, value, [page, layer, 0, head, k * PAGE + slot])
                with T.serial(dim // lanes) as k:
                    value = load(qkv, i, queries + keys + head * dim + k * lanes, lanes=lanes)
                    store(
                        cache,
                        T.Cast(f"{dtype}x{lanes}", value),
                        page,
                        layer,
                        1,
                        head,
                        slot * dim + k * lanes,
                        lanes=lanes,
                    )

    return kernel(body)


def attend(config: ModelConfig, window: int, dtype: str, wide: bool, rows: int | None) -> Any:
    """Softmax attention of each token to its sequence's positions up to its own.

    Arguments: queries (n, heads * lanes), the cache, positions (n,), the row of ``tables`` of
    each token (n,), tables (sequences, most pages), the layer -> (n, heads * lanes).

    Pages are taken one after the other; when a larger score comes, what was summed is scaled.
    ``wide`` registers hold a vector each, so that there are enough for twice as many sums.
    """
    dim, heads, kv_heads = config.head_dim, config.heads, config.kv_heads
    shared = heads // kv_heads
    together = next(size for size in range(_TOGETHER, 0, -1) if shared % size == 0)
    parts = shared // together
    lanes = widest(dim)
    beside = math.gcd(dim // lanes, 2 if wide else 1)  # vectors of values summed at once
    cap, factor = config.attention_softcap, config.attention_scale

    def body() -> None:
        n, pages = count("n", rows), T.int64()
        sequences, most = T.int64(), T.int64()
        q = argument("q", (n, heads * dim))
        cache = argument("cache", cache_shape(config, pages), dtype)
        positions, of = argument("positions", (n,), "int32"), argument("rows", (n,), "int32")
        tables = argument("tables", (sequences, most), "int32")
        layer = T.arg("layer", T.int64())
        out = argument("out", (n, heads * dim))

        def score(page: Any, kv_head: Any, i: Any, first_head: Any, scores: Any) -> None:
            """Products of queries and a page's keys, in two sums a head."""
            for at in range(2 * together):
                store(scores, number(0.0), at * LANES)
            with T.serial(dim // _KEYS) as d:
                sums = [T.bind(load(scores, at * LANES)) for at in range(2 * together)]
                for c in range(_KEYS):
                    lane = d * _KEYS + c
                    key = load(cache, page, layer, 0, kv_head, lane * PAGE)
                    key = T.bind(floats(key, dtype=dtype))
                    for h in range(together):
                        query = splat(q[i, (first_head + h) * dim + lane])
                        at = 2 * h + c % 2
                        sums[at] = T.bind(sums[at] + key * query)
                for at, value in enumerate(sums):
                    store(scores, value, at * LANES)

        def weigh(h: int, visible: Any, scores: Any, top: Any, seen: Any, weights: Any) -> Any:
            """Turns a head's scores into weights; returns what former sums shrink by."""
            value = load(scores, 2 * h * LANES) + load(scores, (2 * h + 1) * LANES)
            value = value * number(factor)
            if cap:
                value = tanh(value * number(1 / cap)) * number(cap)
            value = T.bind(tirx.Select(visible, value, number(LOWEST)))
            peak = T.bind(maximum(top[h], largest(value)))
            shrink = T.bind(exp(top[h] - peak, 1))
            T.buffer_store(top, peak, [h])
            weight = T.bind(tirx.Select(visible, exp(value - splat(peak)), number(0.0)))
            store(weights, weight, h * LANES)
            store(seen, load(seen, h * LANES) * splat(shrink) + weight, h * LANES)
            return shrink

        def add_values(
            page: Any, kv_head: Any, shrinks: list[Any], weights: Any, sums: Any
        ) -> None:
            with T.serial(dim // lanes // beside) as k:
                first = [(k * beside + c) * lanes for c in range(beside)]
                new = {
                    (h, c): T.bind(
                        load(sums, h * dim + first[c], lanes=lanes) * splat(shrinks[h], lanes)
                    )
                    for h in range(together)
                    for c in range(beside)
                }
                for slot in range(PAGE):
                    for c in range(beside):
                        value = load(
                            cache, page, layer, 1, kv_head, slot * dim + first[c], lanes=lanes
                        )
                        value = T.bind(floats(value, lanes, dtype=dtype))
                        for h in range(together):
                            weight = splat(weights[h * LANES + slot], lanes)
                            new[h, c] = T.bind(new[h, c] + value * weight)
                for (h, c), value in new.items():
                    store(sums, value, h * dim + first[c], lanes=lanes)

        with T.parallel(n * (kv_heads * parts)) as task:
            # Threads take tasks in a row, and late tokens see more: one from either end in turns.
            turn = T.bind(task // (kv_heads * parts))
            i = T.bind(tirx.Select(turn % 2 == 0, turn // 2, n - 1 - turn // 2))
            kv_head = T.bind(task % (kv_heads * parts) // parts)
            first_head = T.bind(kv_head * shared + task % parts * together)
            sums, seen = local((together * dim,)), local((together * LANES,))
            top, weights = local((together,)), local((together * LANES,))
            scores = local((2 * together * LANES,))
            with T.serial(together * dim // lanes) as k:
                store(sums, number(0.0, lanes), k * lanes, lanes=lanes)
            for h in range(together):
                store(seen, number(0.0), h * LANES)
                T.buffer_store(top, T.float32(LOWEST), [h])
            last = T.bind(positions[i])
            first = T.int32(0)
            if window:
                first = T.bind(tirx.Max(last - (window - 1), T.int32(0)))
            start = T.bind(first // PAGE)
            with T.serial(last // PAGE + 1 - start) as number_of:
                entry = T.bind(start + number_of)
                page = T.bind(T.Cast("int64", tables[of[i], entry]))
                score(page, kv_head, i, first_head, scores)
                where = T.bind(splat(entry * PAGE) + T.ramp(T.int32(0), 1, LANES))
                visible = tirx.And(where <= splat(last), where >= splat(first))
                shrinks = [weigh(h, visible, scores, top, seen, weights) for h in range(together)]
                add_values(page, kv_head, shrinks, weights, sums)
            for h in range(together):
                mine = local((LANES,))
                store(mine, load(seen, h * LANES), 0)
                one = T.bind(T.float32(1) / total(mine))
                with T.serial(dim // lanes) as k:
                    value = load(sums, h * dim + k * lanes, lanes=lanes) * splat(one, lanes)
                    store(out, value, i, (first_head + h) * dim + k * lanes, lanes=lanes)

    return kernel(body)


def _padded(rows: int) -> int:
    return -(-rows // LANES) * LANES
