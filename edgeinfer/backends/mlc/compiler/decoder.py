"""The decoder in TVM's module language, drawn from a model's numbers and parameters.

A step takes tokens of any sequences together. Where the keys and values of a token go, and where
those of its sequence lie, it is told in numbers of slots and pages; the caller keeps the books.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tvm.relax.frontend import nn

from edgeinfer.arch.config import ModelConfig, NormPlacement, QkNorm
from edgeinfer.backends.mlc.compiler.kernel_set import KernelSet
from edgeinfer.backends.mlc.parameters import Contents, Matrix

MOST_TOKENS = 512  # of a step
MOST_LOGITS = 32  # rows computed at once


class MatrixModule(nn.Module):  # type: ignore[misc]
    """A matrix, and the bias of its product."""

    def __init__(self, matrix: Matrix, kernels: KernelSet) -> None:
        self.matrix, self.kernels = matrix, kernels
        for name, shape, dtype in kernels.parameters(matrix):
            setattr(self, name, nn.Parameter(shape, dtype))

    def forward(self, x: Any) -> Any:
        """X (n, columns) -> (n, rows), rows up to a whole tile."""
        return self.kernels.product(self.matrix, self._parts(), x)

    def embed(self, ids: Any, scale: float) -> Any:
        """Ids (n,) -> (n, columns)."""
        return self.kernels.embed(self.matrix, self._parts(), ids, scale)

    def _parts(self) -> Mapping[str, Any]:
        return {name: getattr(self, name) for name, _, _ in self.kernels.parameters(self.matrix)}


class NormModule(nn.Module):  # type: ignore[misc]
    """The weights of a norm."""

    def __init__(self, length: int) -> None:
        self.weight = nn.Parameter((length,), "float32")


class Block(nn.Module):  # type: ignore[misc]
    """Attention, then feed-forward."""

    def __init__(self, config: ModelConfig, i: int, held: Contents, kernels: KernelSet) -> None:
        self.config, self.i, self.kernels = config, i, kernels
        prefix = f"blk.{i}."
        for name, length in held.vectors.items():
            if name.startswith(prefix):
                setattr(self, name.removeprefix(prefix), NormModule(length))
        for name, matrix in held.matrices.items():
            if name.startswith(prefix):
                setattr(self, name.removeprefix(prefix), MatrixModule(matrix, kernels))

    def run(self, x: Any, where: Where, cache: Any) -> tuple[Any, Any]:
        """The stream (n, width) and the cache, after the block."""
        attended, cache = self._attention(self._normed(x, "attn_norm"), where, cache)
        x = self._added(x, self._normed(attended, "post_attention_norm"))
        fed = self._feed_forward(self._normed(x, "ffn_norm"))
        return self._added(x, self._normed(fed, "post_ffw_norm")), cache

    def _attention(self, x: Any, where: Where, cache: Any) -> tuple[Any, Any]:
        config, i = self.config, self.i
        norms = []
        if config.qk_norm is not QkNorm.NONE:
            norms = [self.attn_q_norm.weight, self.attn_k_norm.weight]
        table = where.angles[config.layer_rope[i]] if config.layer_rope[i] >= 0 else None
        queries, cache = self.kernels.rotate(self.attn_qkv(x), norms, table, where.slots, cache, i)
        attended = self.kernels.attend(queries, cache, where, config.layer_window[i], i)
        return self.attn_output(attended), cache

    def _feed_forward(self, x: Any) -> Any:
        return self.ffn_down(self.kernels.gated(self.ffn_gate_up(x)))

    def _normed(self, x: Any, name: str) -> Any:
        norm = getattr(self, name, None)
        return x if norm is None else self.kernels.norm(x, norm.weight)

    def _added(self, x: Any, y: Any) -> Any:
        return self.kernels.add(x, y, self.config.residual_scale)


class Where:
    """Positions of tokens, and where keys and values lie.

    Attributes:
        positions: of each token in its sequence (n,).
        slots: of each token's key and value (n,), page * 16 + place.
        rows: of ``tables``, each token's (n,).
        tables: pages of each sequence (sequences, most pages).
        angles: cosines and sines of each rotary table.
    """

    def __init__(
        self, kernels: KernelSet, positions: Any, slots: Any, rows: Any, tables: Any
    ) -> None:
        self.positions, self.slots, self.rows, self.tables = positions, slots, rows, tables
        self.angles = [
            kernels.angles(
                positions,
                nn.Tensor.from_const(np.array(table.inverse_frequencies, np.float32)),
                table.magnitude,
            )
            for table in kernels.config.rope_tables
        ]


class Decoder(nn.Module):  # type: ignore[misc]
    """All of a model."""

    def __init__(self, config: ModelConfig, held: Contents, kernels: KernelSet) -> None:
        assert config.norm_placement in NormPlacement
        self.config, self.kernels = config, kernels
        self.token_embd = MatrixModule(held.matrices["token_embd"], kernels)
        self.blk = nn.ModuleList([Block(config, i, held, kernels) for i in range(config.layers)])
        self.output_norm = NormModule(config.width)
        if not config.tied_output:
            self.output = MatrixModule(held.matrices["output"], kernels)

    def hidden(
        self, tokens: Any, positions: Any, slots: Any, rows: Any, tables: Any, cache: Any
    ) -> Any:
        """Appends tokens (n,) to their sequences -> hidden states (n, width)."""
        where = Where(self.kernels, positions, slots, rows, tables)
        x = self.token_embd.embed(tokens, self.config.embedding_scale)
        for block in self.blk:
            x, cache = block.run(x, where, cache)
        return self.kernels.norm(x, self.output_norm.weight)

    def logits(self, hidden: Any) -> Any:
        """Hidden states (m, width) -> logits (m, vocabulary), columns up to a whole tile."""
        matrix = self.token_embd if self.config.tied_output else self.output
        return self.kernels.scaled_and_capped(
            matrix(hidden), self.config.output_scale, self.config.output_softcap
        )

    # The same of one token, for which there are kernels of their own.
    hidden_of_one = hidden
    logits_of_one = logits


def specification(decoder: Decoder, kernels: KernelSet) -> Any:
    """The functions of a library, with the shapes of what they take."""
    config = decoder.config
    packed = {"param_mode": "packed", "effect_mode": "none"}
    functions: dict[str, Any] = {}
    for suffix, n, m in (("", "n", "m"), ("_of_one", 1, 1)):
        functions[f"hidden{suffix}"] = {
            **{
                name: nn.spec.Tensor([n], "int32")
                for name in ("tokens", "positions", "slots", "rows")
            },
            "tables": nn.spec.Tensor(["sequences", "most"], "int32"),
            "cache": nn.spec.Tensor(list(kernels.cache_shape("pages")), kernels.cache_dtype),
            "$": packed,
        }
        functions[f"logits{suffix}"] = {
            "hidden": nn.spec.Tensor([m, config.width], "float32"),
            "$": packed,
        }
    return nn.spec.ModuleSpec.from_raw(functions, decoder)
