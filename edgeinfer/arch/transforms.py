"""How a checkpoint's tensors become a GGUF's: rows in another order, values changed.

A transform works on rows, so that a converter can stream a tensor in blocks of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeinfer.arch.config import ModelConfig
from edgeinfer.arch.spec import Architecture

Rows = NDArray[np.int64]
Shape = tuple[int, ...]


def _same_shape(shape: Shape) -> Shape:
    return shape


def _one_channel(shape: Shape) -> Shape:
    """A depthwise convolution reads one channel a group: (channels, 1, taps)."""
    return (shape[0], 1, *shape[1:])


def _same_order(config: ModelConfig, rows: int) -> Rows | None:
    return None


def _same_values(block: NDArray[np.float32]) -> NDArray[np.float32]:
    return block


@dataclass(frozen=True, slots=True, kw_only=True)
class Transform:
    """What happens to a tensor on its way into a GGUF.

    Attributes:
        stored: the GGUF's shape -> the checkpoint's, with as many values.
        row_order: (config, rows) -> for each row of the GGUF the row of the checkpoint,
            None for the same order.
        transposed: the checkpoint has the matrix the other way round.
        values: changes float32 values, of any shape.
    """

    stored: Callable[[Shape], Shape] = _same_shape
    row_order: Callable[[ModelConfig, int], Rows | None] = _same_order
    transposed: bool = False
    values: Callable[[NDArray[np.float32]], NDArray[np.float32]] = _same_values


def neighbour_pairs(config: ModelConfig, rows: int) -> Rows:
    """Orders each head's rows so that the two lanes of a rotary pair are neighbours.

    Checkpoints have pair i in rows (i, i + head_dim/2), GGUFs of llama's kind in
    (2i, 2i + 1).
    """
    order = np.arange(rows, dtype=np.int64)
    by_half = order.reshape(rows // config.head_dim, 2, config.head_dim // 2)
    return by_half.swapaxes(1, 2).reshape(rows)


def _add_one(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Gemma's checkpoints hold a norm's weight less one."""
    return block + np.float32(1)


TRANSFORMS: Mapping[str, Transform] = {
    "neighbour_pairs": Transform(row_order=neighbour_pairs),
    "add_one": Transform(values=_add_one),
    "transpose": Transform(stored=lambda shape: shape[::-1], transposed=True),
    "one_channel": Transform(stored=_one_channel),
}
IDENTITY = Transform()


def transform_of(arch: Architecture, kind: str) -> Transform:
    """Returns what happens to a kind of tensor, such as "attn_q.weight"."""
    return TRANSFORMS[arch.transforms[kind]] if kind in arch.transforms else IDENTITY
