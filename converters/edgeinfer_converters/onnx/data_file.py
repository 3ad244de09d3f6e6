"""The file of the weights: tensors at offsets known before any of them is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BufferedRandom
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx_ir as ir

NAME = "model.onnx.data"
_ALIGNMENT = 4096  # a tensor begins on a page, so that it can be mapped

_TYPES = {"f32": np.float32, "f16": np.float16, "uint8": np.uint8}


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in the data file, under one name of the graph."""

    name: str
    type: str
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        return prod(self.shape) * np.dtype(_TYPES[self.type]).itemsize

    def tensor(self) -> ir.ExternalTensor:
        """As the graph refers to it."""
        import onnx_ir as ir

        types = {"f32": ir.DataType.FLOAT, "f16": ir.DataType.FLOAT16, "uint8": ir.DataType.UINT8}
        return ir.ExternalTensor(
            NAME,
            self.offset,
            self.nbytes,
            types[self.type],
            shape=ir.Shape(self.shape),
            name=self.name,
        )


@dataclass(slots=True)
class DataFile:
    """Where tensors will lie, and then their bytes, in any order of rows."""

    size: int = 0
    tensors: list[Stored] = field(default_factory=list)

    def declare(self, name: str, type: str, shape: tuple[int, ...]) -> Stored:
        """Gives a tensor its place."""
        stored = Stored(name, type, shape, -(-self.size // _ALIGNMENT) * _ALIGNMENT)
        self.tensors.append(stored)
        self.size = stored.offset + stored.nbytes
        return stored

    def write(self, file: BufferedRandom, stored: Stored, row: int, rows: NDArray[Any]) -> int:
        """Writes rows of a tensor; returns their bytes."""
        data = np.ascontiguousarray(rows, _TYPES[stored.type])
        row_bytes = stored.nbytes // stored.shape[0]
        file.seek(stored.offset + row * row_bytes)
        return file.write(data.data)

    def read(self, file: BufferedRandom, stored: Stored, first: int, last: int) -> NDArray[Any]:
        """Reads rows of a tensor back."""
        row_bytes = stored.nbytes // stored.shape[0]
        file.seek(stored.offset + first * row_bytes)
        octets = file.read((last - first) * row_bytes)
        return np.frombuffer(octets, _TYPES[stored.type]).reshape(last - first, -1)


def blocks_of(rows: int, columns: int, values: int) -> Iterator[tuple[int, int]]:
    """Cuts rows into ranges of about so many values."""
    step = max(1, values // columns)
    for first in range(0, rows, step):
        yield first, min(first + step, rows)
