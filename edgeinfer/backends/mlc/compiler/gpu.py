"""The decoder's operations on graphics processors: tensor expressions, scheduled by TVM's rules.

Matrices lie as in the folder, those that the graph has in one below each other, or beside each
other where the folder has them transposed. Floats that it has the upper halves of come whole: so
TVM's runtime loads them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import te, tirx
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from edgeinfer.arch.config import Activation, ModelConfig, QkNorm
from edgeinfer.backends.mlc.compiler.cpu import FLOATS
from edgeinfer.backends.mlc.compiler.kernels.attention import PAGE, cache_shape
from edgeinfer.backends.mlc.parameters import Matrix
from edgeinfer.formats.mlc.quants import Quant

if TYPE_CHECKING:
    from edgeinfer.backends.mlc.compiler.decoder import Where

PLAIN = "edgeinfer.plain"  # marks functions that are scheduled by the simplest rule
_LOWEST = -3e4  # a score that is not seen; half floats hold it


class GpuKernels:
    """As ``KernelSet``.

    Args:
        quant: how the folder stores weights.
    """

    def __init__(self, config: ModelConfig, kv_type: str, quant: Quant) -> None:
        self.config, self.quant = config, quant
        self.cache_dtype = FLOATS[kv_type]

    def parameters(self, matrix: Matrix) -> list[tuple[str, tuple[int, ...], str]]:
        """As ``KernelSet.parameters``."""
        dtype = "float32" if self.quant.dtype == "float32" else matrix.dtype
        if matrix.group:
            shapes = [
                ("codes", matrix.groups * self.quant.words_per_group, "uint32"),
                ("scales", matrix.groups, dtype),
            ]
        else:
            shapes = [("floats", matrix.columns, dtype)]
        held: list[tuple[str, tuple[int, ...], str]] = [
            (name, (width, matrix.rows) if matrix.transposed else (matrix.rows, width), kind)
            for name, width, kind in shapes
        ]
        if matrix.bias:
            held.append(("bias", (matrix.rows,), "float32"))
        return held

    def cache_shape(self, pages: Any) -> tuple[Any, ...]:
        """As ``KernelSet.cache_shape``."""
        return cache_shape(self.config, pages)

    def _value(self, matrix: Matrix, parts: Sequence[Any], row: Any, column: Any) -> Any:
        """A weight."""
        if not matrix.group:
            return _float(parts[0][row, column])
        bits, each = self.quant.bits, self.quant.codes_per_word

        def at(index: Any) -> tuple[Any, Any]:
            return (index, row) if matrix.transposed else (row, index)

        word, scale = parts[0][at(column // each)], parts[1][at(column // matrix.group)]
        shift = (column % each * bits).astype("uint32")
        code = (word >> shift & tirx.const((1 << bits) - 1, "uint32")).astype("float32")
        return (code - tirx.const(float(self.quant.offset), "float32")) * _float(scale)

    def product(self, matrix: Matrix, parts: Mapping[str, Any], x: Any) -> Any:
        """As ``KernelSet.product``."""

        def compute(x: Any, *given: Any) -> Any:
            rows, columns = matrix.rows, matrix.columns
            weight = te.compute(
                (rows, columns), lambda r, c: self._value(matrix, given, r, c), name="weight"
            )
            k = te.reduce_axis((0, columns), "k")
            made = te.compute(
                (x.shape[0], rows), lambda i, r: te.sum(x[i, k] * weight[r, k], axis=k), "product"
            )
            if not matrix.bias:
                return made
            return te.compute(made.shape, lambda i, r: made[i, r] + given[-1][r], "biased")

        return op.tensor_expr_op(compute, "product", [x, *parts.values()])

    def embed(self, matrix: Matrix, parts: Mapping[str, Any], ids: Any, scale: float) -> Any:
        """As ``KernelSet.embed``."""

        def compute(ids: Any, *given: Any) -> Any:
            def value(i: Any, k: Any) -> Any:
                return self._value(matrix, given, ids[i], k) * tirx.const(scale, "float32")

            return te.compute((ids.shape[0], matrix.columns), value, "embedded")

        return op.tensor_expr_op(compute, "embed", [ids, *parts.values()])

    def norm(self, x: Any, weight: Any) -> Any:
        """As ``KernelSet.norm``."""
        return op.rms_norm(x, weight, [-1], self.config.norm_eps)

    def add(self, x: Any, y: Any, scale: float) -> Any:
        """As ``KernelSet.add``."""
        return x + (y if scale == 1.0 else y * scale)

    def gated(self, x: Any) -> Any:
        """As ``KernelSet.gated``."""
        gate, up = op.split(x, 2, axis=-1)
        if self.config.activation is Activation.GELU_TANH:
            return op.gelu(gate, approximate="tanh") * up
        return op.silu(gate) * up

    def scaled_and_capped(self, x: Any, scale: float, cap: float) -> Any:
        """As ``KernelSet.scaled_and_capped``."""
        x = x if scale == 1.0 else x * scale
        return op.tanh(x / cap) * cap if cap else x

    def angles(self, positions: Any, frequencies: Any, magnitude: float) -> Any:
        """As ``KernelSet.angles``."""

        def waved(wave: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
            def compute(positions: Any, frequencies: Any) -> Any:
                def value(i: Any, k: Any) -> Any:
                    angle = positions[i].astype("float32") * frequencies[k]
                    return wave(angle) * tirx.const(magnitude, "float32")

                return te.compute((positions.shape[0], frequencies.shape[0]), value, "angles")

            return compute

        given = [positions, frequencies]
        return [op.tensor_expr_op(waved(wave), "angles", given) for wave in (tirx.cos, tirx.sin)]

    def rotate(
        self, qkv: Any, norms: Sequence[Any], angles: Any, slots: Any, cache: Any, layer: int
    ) -> tuple[Any, Any]:
        """As ``KernelSet.rotate``."""
        config = self.config
        n, dim = qkv.shape[0], config.head_dim
        queries, keys = config.heads * dim, config.kv_heads * dim
        q, k, v = op.split(qkv, [queries, queries + keys], axis=-1)
        if norms:
            q, k = (self._head_norm(x, weight) for x, weight in zip((q, k), norms, strict=True))
        if angles:
            q, k = self._turned(q, angles), self._turned(k, angles)
        cache = op.tensor_ir_inplace_op(
            self._appending(),
            "append",
            [k, v, slots, _number(layer), cache],
            4,
            nn.Tensor.placeholder(cache.shape, self.cache_dtype),
        )
        return op.reshape(q, (n, queries)), cache

    def _head_norm(self, x: Any, weight: Any) -> Any:
        n, width = x.shape
        if self.config.qk_norm is QkNorm.FULL:
            return op.rms_norm(x, weight, [-1], self.config.norm_eps)
        heads = op.reshape(x, (n, int(width) // self.config.head_dim, self.config.head_dim))
        return op.reshape(op.rms_norm(heads, weight, [-1], self.config.norm_eps), (n, width))

    def _turned(self, x: Any, angles: Any) -> Any:
        dim, pairs = self.config.head_dim, int(angles[0].shape[1])

        def compute(x: Any, cos: Any, sin: Any) -> Any:
            def value(i: Any, column: Any) -> Any:
                lane = column % dim
                pair = lane % pairs
                lower = lane < pairs
                other = tirx.if_then_else(lower, column + pairs, column - pairs)
                sign = tirx.if_then_else(
                    lower, tirx.const(-1.0, "float32"), tirx.const(1.0, "float32")
                )
                turned = x[i, column] * cos[i, pair] + sign * x[i, other] * sin[i, pair]
                return tirx.if_then_else(lane < 2 * pairs, turned, x[i, column])

            return te.compute(x.shape, value, "turned")

        return op.tensor_expr_op(compute, "turn", [x, *angles])

    def _appending(self) -> Any:
        config, dim = self.config, self.config.head_dim
        dtype = self.cache_dtype
        with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
            T.func_name("main")
            T.func_attr({"tirx.noalias": True, "op_pattern": 8})
            n, pages = T.int64(), T.int64()
            width = config.kv_heads * dim
            k, v = (T.arg(name, T.buffer((n, width), "float32")) for name in ("k", "v"))
            slots = T.arg("slots", T.buffer((n,), "int32"))
            layer = T.arg("layer", T.buffer((1,), "int32"))
            cache = T.arg("cache", T.buffer(cache_shape(config, pages), dtype))
            for part, name, values in ((0, "key", k), (1, "value", v)):
                with T.grid(n, width) as (i, column), T.sblock(name):
                    vi = T.axis.spatial(n, i)
                    vc = T.axis.spatial(width, column)
                    page = T.Cast("int64", slots[vi] // PAGE)
                    slot = T.Cast("int64", slots[vi] % PAGE)
                    lane = vc % dim
                    place = slot * dim + lane if part else lane * PAGE + slot
                    at = [page, T.Cast("int64", layer[0]), part, vc // dim, place]
                    T.reads(values[vi, vc], slots[vi], layer[0])
                    T.writes(cache[tuple(at)])
                    T.buffer_store(cache, T.Cast(dtype, values[vi, vc]), at)
        return builder.get()

    def attend(self, queries: Any, cache: Any, where: Where, window: int, layer: int) -> Any:
        """As ``KernelSet.attend``."""
        config, dim = self.config, self.config.head_dim
        shared = config.heads // config.kv_heads

        def scores(q: Any, cache: Any, positions: Any, rows: Any, tables: Any, at: Any) -> Any:
            k = te.reduce_axis((0, dim), "k")
            shape = (q.shape[0], config.heads, tables.shape[1] * PAGE)

            def product(i: Any, h: Any, p: Any) -> Any:
                page = tables[rows[i], p // PAGE]
                key = cache[page, at[0], 0, h // shared, k * PAGE + p % PAGE]
                return te.sum(q[i, h * dim + k] * _float(key), axis=k)

            made = te.compute(shape, product, "scores")

            def visible(i: Any, h: Any, p: Any) -> Any:
                seen = p <= positions[i]
                if window:
                    seen = tirx.all(seen, p > positions[i] - window)
                value = made[i, h, p] * tirx.const(config.attention_scale, "float32")
                if config.attention_softcap:
                    cap = tirx.const(config.attention_softcap, "float32")
                    value = tirx.tanh(value / cap) * cap
                return tirx.if_then_else(seen, value, tirx.const(_LOWEST, "float32"))

            return te.compute(shape, visible, "visible")

        def values(
            weights: Any, cache: Any, positions: Any, rows: Any, tables: Any, at: Any
        ) -> Any:
            p = te.reduce_axis((0, tables.shape[1] * PAGE), "p")

            def summed(i: Any, column: Any) -> Any:
                h, lane = column // dim, column % dim
                page = tables[rows[i], p // PAGE]
                value = cache[page, at[0], 1, h // shared, p % PAGE * dim + lane]
                # What was never written may be no number.
                kept = tirx.if_then_else(
                    p <= positions[i], _float(value), tirx.const(0.0, "float32")
                )
                return te.sum(weights[i, h, p] * kept, axis=p)

            return te.compute((weights.shape[0], config.heads * dim), summed, "attended")

        given = [cache, where.positions, where.rows, where.tables, _number(layer)]
        weights = op.softmax(_plain(scores, "scores", [queries, *given]), axis=-1)
        return _plain(values, "values", [weights, *given])


def _plain(compute: Callable[..., Any], name: str, given: Sequence[Any]) -> Any:
    """An operation on its own, which the rules for products would take for one of theirs."""
    places = [
        te.placeholder(tuple(x.shape), str(x.dtype), f"x{number}") for number, x in enumerate(given)
    ]
    made = compute(*places)
    kernel = te.create_prim_func([*places, made]).without_attr("global_symbol")
    kernel = kernel.with_attrs({"op_pattern": 8, PLAIN: 1})
    out = nn.Tensor.placeholder(tuple(made.shape), "float32")
    return op.tensor_ir_op(kernel, name, list(given), out)


def _number(value: int) -> Any:
    return nn.Tensor.from_const(np.array([value], np.int32))


def _float(value: Any) -> Any:
    """Widens a float; bfloat16 comes as its bits."""
    if str(value.dtype) == "uint16":
        bits = value.astype("uint32") << tirx.const(16, "uint32")
        return tirx.reinterpret("float32", bits)
    return value if str(value.dtype) == "float32" else value.astype("float32")
