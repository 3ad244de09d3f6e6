"""Tensors on their way into a GGUF: read a block of rows at a time, changed if need be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeinfer.arch import ModelConfig
from edgeinfer.arch.transforms import IDENTITY, Transform
from edgeinfer.formats.gguf import GGUFFile
from edgeinfer.formats.safetensors import Checkpoint
from edgeinfer.quant import QuantType, decode


class Tensor(Protocol):
    """A tensor under its GGUF name.

    The shape is (rows, columns), (experts, rows, columns) or (length,). A vector counts as one
    row; the rows of stacked matrices are counted through.
    """

    @property
    def name(self) -> str:
        """The name in the GGUF that is written."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in the GGUF that is written."""

    @property
    def exact_type(self) -> str:
        """The smallest float type that holds the weights as they are."""

    @property
    def stored_type(self) -> QuantType | None:
        """The type whose blocks the source has; None if it has none that could be copied."""

    def stored(self, type: QuantType, first: int, last: int) -> NDArray[np.uint8] | None:
        """Returns the bytes of rows if they are stored as ``type`` already, else None."""

    def read(self, first: int, last: int) -> NDArray[np.float32]:
        """Returns rows as float32, (last - first, columns)."""


class EncodedAnew:
    """What tensors have in common whose source has no blocks that could be copied."""

    __slots__ = ()

    @property
    def stored_type(self) -> QuantType | None:
        """None."""
        return None

    def stored(self, type: QuantType, first: int, last: int) -> NDArray[np.uint8] | None:
        """Returns None."""
        return None


def matrix_shape(tensor: Tensor) -> tuple[int, int]:
    """Returns (rows, columns)."""
    *rows, columns = tensor.shape
    return prod(rows), columns


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointTensor(EncodedAnew):
    """A tensor of a safetensors checkpoint."""

    name: str
    shape: tuple[int, ...]
    checkpoint: Checkpoint
    source: str
    config: ModelConfig
    transform: Transform = IDENTITY

    @property
    def exact_type(self) -> str:
        """Vectors are f32: a transform may add to them."""
        dtype = self.checkpoint.tensors[self.source].dtype.lower()
        return dtype if dtype in ("f16", "bf16") and len(self.shape) > 1 else "f32"

    def read(self, first: int, last: int) -> NDArray[np.float32]:
        """Returns rows in the order and with the values that a GGUF has."""
        if len(self.shape) == 1:
            return self._ordered(0, self.shape[0]).reshape(1, -1)
        return self._ordered(first, last)

    def _ordered(self, first: int, last: int) -> NDArray[np.float32]:
        vector = len(self.shape) == 1
        order = self.transform.row_order(
            self.config, self.shape[0] if vector else prod(self.shape[:-1])
        )
        stacked = prod(self.checkpoint.tensors[self.source].shape[1:-1])  # rows of each matrix
        if self.transform.transposed:
            # Rows here lie across the whole tensor there.
            rows = self.checkpoint.read_float32(self.source)[:, first:last].T
        elif order is None and stacked == 1:
            rows = self.checkpoint.read_float32(self.source, rows=slice(first, last))
        else:
            wanted = np.arange(first, last) if order is None else order[first:last]
            # Only rows of one head change places, so those wanted lie near each other.
            low, high = int(wanted.min()) // stacked, int(wanted.max()) // stacked + 1
            near = self.checkpoint.read_float32(self.source, rows=slice(low, high))
            rows = near if vector else near.reshape(-1, self.shape[-1])
            rows = rows[wanted - low * stacked]
        rows = rows.reshape(-1) if vector else rows.reshape(-1, rows.shape[-1])
        columns = self.transform.column_order(self.config, self.shape[-1])
        return self.transform.values(rows if columns is None else rows[:, columns])


@dataclass(frozen=True, slots=True, kw_only=True)
class StackedTensor(EncodedAnew):
    """Matrices of one shape, (rows, columns), one below the other: (parts, rows, columns)."""

    name: str
    parts: Sequence[CheckpointTensor]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in the GGUF."""
        return (len(self.parts), *self.parts[0].shape)

    @property
    def exact_type(self) -> str:
        """That of all parts, if they agree."""
        types = {part.exact_type for part in self.parts}
        return types.pop() if len(types) == 1 else "f32"

    def read(self, first: int, last: int) -> NDArray[np.float32]:
        """Returns rows, which may be of several parts."""
        rows = self.parts[0].shape[0]
        blocks = [
            self.parts[i].read(max(first - i * rows, 0), min(last - i * rows, rows))
            for i in range(first // rows, (last - 1) // rows + 1)
        ]
        return np.concatenate(blocks) if len(blocks) > 1 else blocks[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddedTensor(EncodedAnew):
    """A matrix that may have fewer rows than there are to be: the first stands for the rest.

    That is what transformers looks up for tokens that a table does not have.
    """

    part: CheckpointTensor
    rows: int

    @property
    def name(self) -> str:
        """The name in the GGUF."""
        return self.part.name

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in the GGUF."""
        return (self.rows, *self.part.shape[1:])

    @property
    def exact_type(self) -> str:
        """That of the matrix."""
        return self.part.exact_type

    def read(self, first: int, last: int) -> NDArray[np.float32]:
        """Returns rows, those beyond the matrix's last as its first."""
        there = min(max(self.part.shape[0], first), last)
        rows = self.part.read(first, there) if first < there else self.part.read(0, 1)[:0]
        beyond = np.repeat(self.part.read(0, 1), last - there, axis=0) if there < last else rows[:0]
        return np.concatenate([rows, beyond])


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufTensor:
    """A tensor of a GGUF file, to be copied or encoded anew."""

    name: str
    shape: tuple[int, ...]
    gguf: GGUFFile
    stored_type: QuantType

    @property
    def exact_type(self) -> str:
        """That of the file if it is a float, else f32."""
        return self.stored_type.name if self.stored_type.is_float else "f32"

    def stored(self, type: QuantType, first: int, last: int) -> NDArray[np.uint8] | None:
        """Returns the rows of the file if the type is the file's."""
        return self._rows(first, last) if type == self.stored_type else None

    def read(self, first: int, last: int) -> NDArray[np.float32]:
        """Returns rows decoded."""
        return decode(self.stored_type, self._rows(first, last), matrix_shape(self)[1])

    def _rows(self, first: int, last: int) -> NDArray[np.uint8]:
        row_bytes = self.stored_type.nbytes((matrix_shape(self)[1],))
        octets = self.gguf.read(self.name, first * row_bytes, last * row_bytes)
        return octets.reshape(last - first, row_bytes)


@dataclass(frozen=True, slots=True)
class GivenTensor(EncodedAnew):
    """A tensor that a converter has made itself."""

    name: str
    values: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, ...]:
        """As the values'."""
        return self.values.shape

    @property
    def exact_type(self) -> str:
        """The values' own."""
        return "f32"

    def read(self, first: int, last: int) -> NDArray[np.float32]:
        """Returns rows of the values."""
        return self.values.reshape(-1, self.shape[-1])[first:last]
