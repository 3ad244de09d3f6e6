"""How a checkpoint's tensors become a GGUF's: rows in another order, values changed.

A transform works on rows, so that a converter can stream a tensor in blocks of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeinfer.arch.config import Mixer, ModelConfig
from edgeinfer.arch.spec import Architecture

Rows = NDArray[np.int64]
Shape = tuple[int, ...]


def _same_shape(config: ModelConfig, shape: Shape) -> Shape:
    return shape


def _swapped(config: ModelConfig, shape: Shape) -> Shape:
    return (*shape[:-2], shape[-1], shape[-2])


def _twice_as_wide(config: ModelConfig, shape: Shape) -> Shape:
    return (*shape[:-1], 2 * shape[-1])


def _swapped_twice_as_wide(config: ModelConfig, shape: Shape) -> Shape:
    return _twice_as_wide(config, _swapped(config, shape))


def _even(config: ModelConfig, count: int) -> Rows:
    """Those of the first of two tensors whose rows, or columns, come by turns."""
    return np.arange(0, 2 * count, 2, dtype=np.int64)


def _odd(config: ModelConfig, count: int) -> Rows:
    """Those of the second."""
    return _even(config, count) + 1


def _one_channel(config: ModelConfig, shape: Shape) -> Shape:
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
        stored: (config, the GGUF's shape) -> the checkpoint's.
        row_order: (config, rows) -> for each row of the GGUF the row of the checkpoint,
            None for the same order. Rows of stacked matrices are counted through.
        column_order: the same of columns.
        transposed: the checkpoint has the matrix, or each of several stacked ones, the other way
            round.
        values: changes float32 values, of any shape.
    """

    stored: Callable[[ModelConfig, Shape], Shape] = _same_shape
    row_order: Callable[[ModelConfig, int], Rows | None] = _same_order
    column_order: Callable[[ModelConfig, int], Rows | None] = _same_order
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


def _minus_exp(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Checkpoints hold the logarithm of how fast a delta net's heads forget."""
    return -np.exp(block)


def _one_row(config: ModelConfig, shape: Shape) -> Shape:
    return (1, *shape)


def _both_qkv_and_gate(config: ModelConfig, shape: Shape) -> Shape:
    gate = config.delta_heads * config.delta_dim
    return (config.conv_width(Mixer.DELTA_NET) + gate, *shape[1:])


def _by_key_head(config: ModelConfig) -> list[Rows]:
    """The rows of q, k, v and z, which a checkpoint of Qwen3-Next has key head by key head."""
    dim, values = config.delta_dim, config.delta_heads // config.delta_key_heads * config.delta_dim
    sizes = (dim, dim, values, values)
    rows = np.arange(config.delta_key_heads * sum(sizes), dtype=np.int64)
    by_head = rows.reshape(config.delta_key_heads, sum(sizes))
    ends = np.cumsum(sizes)
    return [by_head[:, end - n : end].reshape(-1) for n, end in zip(sizes, ends, strict=True)]


def _twice_the_rows(config: ModelConfig, shape: Shape) -> Shape:
    """Gates and ups of each expert, one below the other: (experts, 2 * rows, columns)."""
    return (shape[0], 2 * shape[1], *shape[2:])


def _half_of_each(config: ModelConfig, rows: int, half: int) -> Rows:
    both = np.arange(2 * rows, dtype=np.int64).reshape(config.experts, 2, -1)
    return both[:, half].reshape(rows)


def _two_more_rows(config: ModelConfig, shape: Shape) -> Shape:
    return (shape[0] + 2, *shape[1:])


def _tiled(config: ModelConfig, rows: int) -> Rows:
    """Orders value heads so that the first ones of all key heads come first."""
    order = np.arange(rows, dtype=np.int64)
    sharing = config.delta_heads // config.delta_key_heads
    return order.reshape(config.delta_key_heads, sharing, -1).swapaxes(0, 1).reshape(rows)


def _tiled_after_keys(config: ModelConfig, rows: int) -> Rows:
    """The same behind queries and keys, which stay."""
    keys = 2 * config.delta_key_heads * config.delta_dim
    return np.concatenate([np.arange(keys, dtype=np.int64), keys + _tiled(config, rows - keys)])


TRANSFORMS: Mapping[str, Transform] = {
    "neighbour_pairs": Transform(row_order=neighbour_pairs),
    "add_one": Transform(values=_add_one),
    "transpose": Transform(stored=_swapped, transposed=True),
    "even_columns": Transform(stored=_twice_as_wide, column_order=_even),
    "odd_columns": Transform(stored=_twice_as_wide, column_order=_odd),
    "transpose_even": Transform(stored=_swapped_twice_as_wide, row_order=_even, transposed=True),
    "transpose_odd": Transform(stored=_swapped_twice_as_wide, row_order=_odd, transposed=True),
    "one_channel": Transform(stored=_one_channel),
    "after_two": Transform(
        stored=_two_more_rows,
        row_order=lambda _, rows: np.arange(2, rows + 2, dtype=np.int64),
    ),
    "one_row": Transform(stored=_one_row),
    "minus_exp": Transform(values=_minus_exp),
    "qkv_of_qkvz": Transform(
        stored=_both_qkv_and_gate,
        row_order=lambda config, _: np.concatenate(_by_key_head(config)[:3]),
    ),
    "z_of_qkvz": Transform(
        stored=_both_qkv_and_gate, row_order=lambda config, _: _by_key_head(config)[3]
    ),
    "first_half_of_each": Transform(
        stored=_twice_the_rows, row_order=lambda config, rows: _half_of_each(config, rows, 0)
    ),
    "second_half_of_each": Transform(
        stored=_twice_the_rows, row_order=lambda config, rows: _half_of_each(config, rows, 1)
    ),
    "tiled": Transform(row_order=_tiled),
    "tiled_columns": Transform(column_order=_tiled),
    "tiled_minus_exp": Transform(row_order=_tiled, values=_minus_exp),
    "tiled_qkv": Transform(row_order=_tiled_after_keys),
    "tiled_channels": Transform(stored=_one_channel, row_order=_tiled_after_keys),
}
IDENTITY = Transform()


def transform_of(arch: Architecture, kind: str) -> Transform:
    """Returns what happens to a kind of tensor, such as "attn_q.weight"."""
    return TRANSFORMS[arch.transforms[kind]] if kind in arch.transforms else IDENTITY
