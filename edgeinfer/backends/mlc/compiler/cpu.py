"""The decoder's operations on processors: kernels in explicit vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tvm import tirx
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op

from edgeinfer.arch.config import ModelConfig
from edgeinfer.backends.mlc.compiler.isa import Isa
from edgeinfer.backends.mlc.compiler.kernels import attention, matrices
from edgeinfer.backends.mlc.compiler.kernels import rows as by_row
from edgeinfer.backends.mlc.parameters import TILE, Matrix

if TYPE_CHECKING:
    from edgeinfer.backends.mlc.compiler.decoder import Where

_OFFSET = {32: 7, 40: 7}  # of codes, by group: those of three bits are written anew in four
FLOATS = {"f32": "float32", "f16": "float16"}


class CpuKernels:
    """As ``KernelSet``."""

    def __init__(self, config: ModelConfig, isa: Isa, kv_type: str) -> None:
        self.config, self.isa = config, isa
        self.cache_dtype = FLOATS[kv_type]

    def parameters(self, matrix: Matrix) -> list[tuple[str, tuple[int, ...], str]]:
        """As ``KernelSet.parameters``."""
        tiles = matrix.tiles
        held: list[tuple[str, tuple[int, ...], str]] = []
        if matrix.group:
            words = matrix.groups * matrix.group // by_row.WORD
            held.append(("codes", (tiles, words, TILE), "int32"))
            held.append(("scales", (tiles, matrix.groups, TILE), matrix.dtype))
        else:
            held.append(("floats", (tiles, matrix.columns, TILE), matrix.dtype))
        if matrix.bias:
            held.append(("bias", (tiles * TILE,), "float32"))
        return held

    def cache_shape(self, pages: Any) -> tuple[Any, ...]:
        """As ``KernelSet.cache_shape``."""
        return attention.cache_shape(self.config, pages)

    def product(self, matrix: Matrix, parts: Mapping[str, Any], x: Any) -> Any:
        """As ``KernelSet.product``; the activations of codes are rounded to 8 bits."""
        n, rows = _rows(x)
        given: list[Any] = [x]
        if matrix.group:
            together = rows or self.isa.tokens
            blocks = (n + (together - 1)) // together
            shape = (blocks, matrix.groups, together)
            given = op.tensor_ir_op(
                by_row.quantise(
                    matrix.columns, matrix.group, _OFFSET[matrix.group], rows, together
                ),
                "quantise",
                [x],
                [
                    _tensor((blocks, matrix.groups * matrix.group // 4, together), "int32"),
                    _tensor(shape),
                    _tensor(shape, "int32"),
                ],
            )
            kernel = matrices.linear_coded(
                matrix.rows,
                matrix.columns,
                group=matrix.group,
                dtype=matrix.dtype,
                bias=matrix.bias,
                isa=self.isa,
                tokens=rows,
            )
        else:
            kernel = matrices.linear_float(
                matrix.rows,
                matrix.columns,
                dtype=matrix.dtype,
                bias=matrix.bias,
                isa=self.isa,
                tokens=rows,
            )
        out = _tensor((n, matrix.tiles * TILE))
        return op.tensor_ir_op(kernel, "product", [*given, *parts.values()], out)

    def embed(self, matrix: Matrix, parts: Mapping[str, Any], ids: Any, scale: float) -> Any:
        """As ``KernelSet.embed``."""
        n, rows = _rows(ids)
        if matrix.group:
            kernel = by_row.embed_coded(
                matrix.columns,
                matrix.rows,
                matrix.group,
                _OFFSET[matrix.group],
                matrix.dtype,
                scale,
                rows,
            )
        else:
            kernel = by_row.embed(matrix.columns, matrix.rows, matrix.dtype, scale, rows)
        out = _tensor((n, matrix.columns))
        return op.tensor_ir_op(kernel, "embed", [ids, *parts.values()], out)

    def norm(self, x: Any, weight: Any) -> Any:
        """As ``KernelSet.norm``."""
        n, rows = _rows(x)
        width = self.config.width
        kernel = by_row.rms_norm(width, self.config.norm_eps, rows)
        return op.tensor_ir_op(kernel, "norm", [x, weight], _tensor((n, width)))

    def add(self, x: Any, y: Any, scale: float) -> Any:
        """As ``KernelSet.add``."""
        n, rows = _rows(x)
        kernel = by_row.add(self.config.width, scale, rows)
        return op.tensor_ir_op(kernel, "add", [x, y], _tensor((n, self.config.width)))

    def gated(self, x: Any) -> Any:
        """As ``KernelSet.gated``."""
        n, rows = _rows(x)
        width = self.config.ff_width
        kernel = by_row.gated(width, self.config.activation, rows)
        return op.tensor_ir_op(kernel, "gated", [x], _tensor((n, width)))

    def scaled_and_capped(self, x: Any, scale: float, cap: float) -> Any:
        """As ``KernelSet.scaled_and_capped``."""
        if scale == 1.0 and not cap:
            return x
        n, rows = _rows(x)
        width = int(x.shape[1])
        kernel = by_row.capped(width, cap, scale, rows)
        return op.tensor_ir_op(kernel, "cap", [x], _tensor((n, width)))

    def angles(self, positions: Any, frequencies: Any, magnitude: float) -> Any:
        """As ``KernelSet.angles``."""
        n, rows = _rows(positions)
        pairs = int(frequencies.shape[0])
        kernel = attention.angles(pairs, magnitude, rows)
        both = [_tensor((n, pairs)), _tensor((n, pairs))]
        return op.tensor_ir_op(kernel, "angles", [positions, frequencies], both)

    def rotate(
        self, qkv: Any, norms: Sequence[Any], angles: Any, slots: Any, cache: Any, layer: int
    ) -> tuple[Any, Any]:
        """As ``KernelSet.rotate``."""
        n, rows = _rows(qkv)
        pairs = int(angles[0].shape[1]) if angles else 0
        given = [qkv, *norms, *(angles or ()), slots]
        queries, cache = op.tensor_ir_inplace_op(
            attention.rotate(self.config, pairs, self.cache_dtype, rows),
            "rotate",
            [*given, cache, tirx.IntImm("int64", layer)],
            [-1, len(given)],
            [
                _tensor((n, self.config.heads * self.config.head_dim)),
                _tensor(cache.shape, self.cache_dtype),
            ],
        )
        return queries, cache

    def attend(self, queries: Any, cache: Any, where: Where, window: int, layer: int) -> Any:
        """As ``KernelSet.attend``."""
        n, rows = _rows(queries)
        return op.tensor_ir_op(
            attention.attend(self.config, window, self.cache_dtype, self.isa.lanes == TILE, rows),
            "attend",
            [
                queries,
                cache,
                where.positions,
                where.rows,
                where.tables,
                tirx.IntImm("int64", layer),
            ],
            _tensor((n, self.config.heads * self.config.head_dim)),
        )


def _rows(x: Any) -> tuple[Any, int | None]:
    """The first dimension, and its number where that is known: one."""
    n = x.shape[0]
    return n, n if isinstance(n, int) else None


def _tensor(shape: Sequence[Any], dtype: str = "float32") -> Any:
    return nn.Tensor.placeholder(tuple(shape), dtype)
