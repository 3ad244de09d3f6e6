"""Low-rank adapters (LoRA: Hu et al. 2021, arXiv:2106.09685) on the tensors of a model.

An adapter changes a matrix W (rows, columns) into W + B A, with A (rank, columns) and
B (rows, rank). A file's tensor may hold several of the graph's matrices, one below the other:
their changes share A and have rows of B each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeinfer.arch.config import ModelConfig
from edgeinfer.arch.spec import Architecture
from edgeinfer.arch.tensors import (
    at_layer,
    file_shape,
    graph_shape,
    graph_tensors,
    lacking,
    split_name,
)
from edgeinfer.errors import CorruptFileError, UnsupportedError

OTHER_MODEL = "it was made for another model"

# The matrices that an adapter may change.
ADAPTABLE = frozenset(
    f"{name}.weight"
    for name in (
        *("attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output"),
        *("ffn_gate", "ffn_up", "ffn_down"),
        *("shortconv.in_proj", "shortconv.out_proj"),
        *("attn_gate", "ssm_qkv", "ssm_gate", "ssm_ba", "ssm_beta", "ssm_alpha", "ssm_out"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRank:
    """The change of one matrix.

    Attributes:
        a: float32 (rank, columns).
        b: float32 (rows, rank), with the adapter's own scale in it.
    """

    a: NDArray[np.float32]
    b: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the matrix."""
        return (self.b.shape[0], self.a.shape[1])


def require_family(config: ModelConfig, architecture: str, path: object) -> None:
    """Refuses an adapter of another family.

    Raises:
        UnsupportedError: naming both.
    """
    if architecture != config.architecture:
        raise UnsupportedError(
            f"{path}: an adapter for {architecture}, the model is {config.architecture}",
            hint="an adapter fits the model that it was trained on, and its finetunes",
        )


def check(arch: Architecture, config: ModelConfig, name: str, shape: tuple[int, ...]) -> None:
    """Refuses the change of a tensor that the model cannot have.

    Raises:
        UnsupportedError: the tensor cannot be adapted.
        CorruptFileError: it has another shape in the model.
    """
    block, kind = split_name(name)
    layer = int(block[4:-1]) if block else 0
    if layer >= config.layers:
        raise CorruptFileError(
            f"the adapter has {name!r}, the model {config.layers} layers", hint=OTHER_MODEL
        )
    known = set(graph_tensors(arch, config.at(layer), config.mixer(layer))) - lacking(
        arch, config, layer
    )
    parts = arch.fused.get(kind, (kind,))
    if not block or kind not in ADAPTABLE or not set(parts) <= known:
        raise UnsupportedError(
            f"an adapter of {name!r}, which is not adapted here",
            hint="the matrices of attention, of what stands in its place, and of dense "
            "feed-forward blocks are",
        )
    if file_shape(arch, config, name) != tuple(shape):
        raise CorruptFileError(
            f"the adapter's {name!r} has shape {tuple(shape)}, "
            f"the model's {file_shape(arch, config, name)}",
            hint=OTHER_MODEL,
        )


def graph_changes(
    arch: Architecture, config: ModelConfig, changes: Iterable[tuple[str, LowRank]]
) -> Iterator[tuple[str, LowRank]]:
    """Takes the changes of a file's tensors apart into those of the graph's matrices.

    Raises:
        UnsupportedError: a tensor cannot be adapted.
        CorruptFileError: it has another shape in the model.
    """
    for name, change in changes:
        check(arch, config, name, change.shape)
        block, kind = split_name(name)
        first = 0
        for part in arch.fused.get(kind, (kind,)):
            rows = graph_shape(at_layer(config, name), part)[0]
            yield block + part, LowRank(a=change.a, b=change.b[first : first + rows])
            first += rows
