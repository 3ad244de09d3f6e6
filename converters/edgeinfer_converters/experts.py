"""Experts that a checkpoint stacks in one tensor: as floats, or as blocks of four-bit floats.

Floats lie as (experts, columns, rows), for a product with the matrix on the right; blocks as
(experts, rows, columns / 32, 16) beside scales (experts, rows, columns / 32). Rows of two matrices
may come by turns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeinfer.formats.safetensors import Checkpoint
from edgeinfer.quant import QuantType, decode, get
from edgeinfer_converters.tensors import EncodedAnew

_Key = tuple[str, str, int]  # tensor of the checkpoint, tensor of the GGUF, expert


@dataclass(slots=True)
class LastExpert:
    """The matrix that was read last, of all tensors that share this: the next rows are its."""

    _held: tuple[_Key, NDArray[Any]] | None = None

    def get(self, key: _Key, load: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Returns the matrix of a key, loaded if it is not the last one's."""
        if self._held is None or self._held[0] != key:
            self._held = None  # not two at a time
            self._held = (key, load())
        return self._held[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatExperts(EncodedAnew):
    """Matrices of floats, (experts, rows, columns) in the GGUF."""

    name: str
    shape: tuple[int, ...]
    checkpoint: Checkpoint
    source: str
    order: NDArray[np.int64] | None  # of rows; None for the GGUF's
    last: LastExpert = field(repr=False)

    @property
    def exact_type(self) -> str:
        """As the checkpoint's."""
        dtype = self.checkpoint.tensors[self.source].dtype.lower()
        return dtype if dtype in ("f16", "bf16") else "f32"

    def read(self, first: int, last: int) -> NDArray[np.float32]:
        """Returns rows, which may be of several experts."""
        return _rows(self.shape[1], first, last, self._expert)

    def _expert(self, number: int) -> NDArray[np.float32]:
        def load() -> NDArray[np.float32]:
            rows = slice(number, number + 1)
            matrix = self.checkpoint.read_float32(self.source, rows=rows)[0]
            return np.ascontiguousarray(matrix.T if self.order is None else matrix[:, self.order].T)

        return self.last.get((self.source, self.name, number), load)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockExperts:
    """Matrices of MXFP4, (experts, rows, columns) in the GGUF, whose blocks keep their values.

    In a checkpoint a byte holds neighbours, in a GGUF the values i and i + 16 of a block, after
    the block's scale.
    """

    name: str
    shape: tuple[int, ...]
    checkpoint: Checkpoint
    blocks: str
    scales: str
    order: NDArray[np.int64] | None  # of rows; None for the GGUF's
    last: LastExpert = field(repr=False)

    @property
    def exact_type(self) -> str:
        """A bfloat16 has more bits and as large exponents."""
        return "bf16"

    @property
    def stored_type(self) -> QuantType:
        """MXFP4."""
        return get("mxfp4")

    def stored(self, type: QuantType, first: int, last: int) -> NDArray[np.uint8] | None:
        """Returns the blocks of rows, in GGUF's order, if the type is MXFP4."""
        return self._blocks(first, last) if type == self.stored_type else None

    def read(self, first: int, last: int) -> NDArray[np.float32]:
        """Returns rows decoded."""
        return decode(self.stored_type, self._blocks(first, last), self.shape[-1])

    def _blocks(self, first: int, last: int) -> NDArray[np.uint8]:
        return _rows(self.shape[1], first, last, self._expert)

    def _expert(self, number: int) -> NDArray[np.uint8]:
        def load() -> NDArray[np.uint8]:
            part = slice(number, number + 1)
            pairs = self.checkpoint.read_rows(self.blocks, part)[0]
            scales = self.checkpoint.read_rows(self.scales, part)[0]
            if self.order is not None:
                pairs, scales = pairs[self.order], scales[self.order]
            codes = np.stack([pairs & 15, pairs >> 4], axis=-1).reshape(*scales.shape, 32)
            halves = codes[..., :16] | codes[..., 16:] << 4
            return np.concatenate([scales[..., None], halves], axis=-1).reshape(len(scales), -1)

        return self.last.get((self.blocks, self.name, number), load)


def _rows(rows: int, first: int, last: int, expert: Callable[[int], NDArray[Any]]) -> NDArray[Any]:
    """Returns rows [first, last) of matrices of ``rows`` rows, counted through."""
    parts = [
        expert(i)[max(first - i * rows, 0) : min(last - i * rows, rows)]
        for i in range(first // rows, (last - 1) // rows + 1)
    ]
    return np.concatenate(parts) if len(parts) > 1 else parts[0]
