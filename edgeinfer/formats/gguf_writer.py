"""Writes GGUF files in one pass, with a piece of one tensor in memory at a time.

with GGUFWriter("model.gguf") as writer:
    writer.add_metadata("general.architecture", "llama")
    writer.declare_tensor("token_embd.weight", "q4_0", (32000, 576))
    writer.begin()
    for rows in quantised:
        writer.write("token_embd.weight", rows)
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeinfer.errors import EdgeInferError, UnsupportedError
from edgeinfer.formats import ggml_types
from edgeinfer.formats.atomic import AtomicFile, Octets
from edgeinfer.formats.gguf_header import (
    ALIGNMENT_KEY,
    ALIGNMENTS,
    DEFAULT_ALIGNMENT,
    MAGIC,
    MAX_DIMENSIONS,
    MAX_KEY,
    MAX_TENSOR_NAME,
    padded,
)
from edgeinfer.formats.gguf_values import WritableValue, encode_name, encode_value
from edgeinfer.formats.metadata import ValueType

VERSION = 3


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A declared tensor: its row of the table, less the offset, and its size."""

    row: bytes
    nbytes: int


class GGUFWriter:
    """A GGUF file in the making: metadata and the table of tensors first, then their data.

    The file appears under its name only when it is complete; see ``AtomicFile``. Leaving
    the context finishes it, unless an exception leaves too.

    Raises:
        EdgeInferError: the disk cannot take the file, or a tensor's data is not what was
            declared.
        UnsupportedError: a value, name or shape that the format has no room for.
    """

    def __init__(self, path: str | os.PathLike[str], *, alignment: int = DEFAULT_ALIGNMENT) -> None:
        self._keys: dict[str, bytes] = {}  # name -> its whole entry
        self._tensors: dict[str, _Tensor] = {}
        self._alignment = DEFAULT_ALIGNMENT
        if alignment != DEFAULT_ALIGNMENT:
            self.add_metadata(ALIGNMENT_KEY, alignment, ValueType.U32)
        self._unwritten: list[str] | None = None  # after begin: tensors, the last one first
        self._written = 0  # bytes of the tensor that is being written
        self._file = AtomicFile(path)

    def add_metadata(self, key: str, value: WritableValue, type: ValueType | None = None) -> None:
        """Adds a key, or replaces its value.

        To copy a key from a file, hand on its type from ``Metadata.types``.

        Args:
            key: dotted name.
            value: as ``Metadata`` has it; lists of numbers or booleans will do as well.
            type: of the value, or of a list's elements. By default a float is f32 and an
                integer u32, or if it does not fit i32, i64 or u64; a list's numbers are
                f32 or i32; an array says itself what it is of.
        """
        if key == ALIGNMENT_KEY:
            if not isinstance(value, int) or value not in ALIGNMENTS:
                raise UnsupportedError(f"key {key!r}: {value!r:.80} cannot be an alignment")
            self._alignment, type = value, ValueType.U32
        self._keys[key] = encode_name(key, MAX_KEY) + encode_value(key, value, type)

    def declare_tensor(self, name: str, type: str, shape: tuple[int, ...]) -> int:
        """Adds a tensor to the table and returns how many bytes of data it takes.

        Args:
            name: at most 63 bytes of UTF-8.
            type: a name of ``ggml_types``, such as ``q4_0``.
            shape: in numpy's order; the last size is a whole number of blocks.
        """
        kind = ggml_types.BY_NAME.get(type)
        if kind is None:
            raise UnsupportedError(f"tensor {name!r}: unknown type {type!r}")
        rank = len(shape)
        if not 0 < rank <= MAX_DIMENSIONS or min(shape) < 1 or shape[-1] % kind.block:
            raise UnsupportedError(f"tensor {name!r}: the shape {shape} cannot be {type}")
        if name in self._tensors:
            raise UnsupportedError(f"tensor {name!r}: declared twice")
        row = struct.pack(f"<I{rank}QI", rank, *reversed(shape), kind.id)
        nbytes = math.prod(shape) // kind.block * kind.nbytes
        self._tensors[name] = _Tensor(encode_name(name, MAX_TENSOR_NAME) + row, nbytes)
        return nbytes

    def begin(self) -> None:
        """Writes the header; from here on only data can follow."""
        assert self._unwritten is None, "begin is called once"
        table: list[bytes] = []
        offset = 0
        for tensor in self._tensors.values():
            table.append(tensor.row + struct.pack("<Q", offset))
            offset += padded(tensor.nbytes, self._alignment)
        counts = struct.pack("<IQQ", VERSION, len(self._tensors), len(self._keys))
        header = b"".join([MAGIC, counts, *self._keys.values(), *table])
        self._file.reserve(len(header) + offset)
        self._file.write(header)
        if self._tensors:
            self._pad(len(header))
        self._unwritten = list(reversed(self._tensors))

    def write(self, name: str, data: Octets | NDArray[Any]) -> None:
        """Writes a tensor's data, or the next part of it, in the order of declaration."""
        assert self._unwritten is not None, "begin comes first"
        if self._unwritten[-1:] != [name]:
            expected = repr(self._unwritten[-1]) if self._unwritten else "nothing more"
            raise EdgeInferError(f"data of tensor {name!r} given, {expected} expected")
        octets = _octets(data)
        nbytes = self._tensors[name].nbytes
        self._written += len(octets)
        if self._written > nbytes:
            raise EdgeInferError(f"tensor {name!r}: {self._written} bytes given, it has {nbytes}")
        self._file.write(octets)
        if self._written == nbytes:
            self._pad(nbytes)
            self._unwritten.pop()
            self._written = 0

    def preview(self) -> Path:
        """Where the complete file can be read before it has its name; in this process only."""
        self._complete()
        return self._file.readable()

    def sync(self) -> None:
        """Makes the complete file durable; it has no name yet."""
        self._complete()
        self._file.sync()

    def finish(self) -> None:
        """Makes the file durable and gives it its name."""
        try:
            self._complete()
            self._file.commit()
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Forgets what was written; after ``finish`` it does nothing."""
        self._file.abort()

    def _complete(self) -> None:
        if self._unwritten is None:
            self.begin()
        if self._unwritten:
            raise EdgeInferError(f"the data of tensor {self._unwritten[-1]!r} is missing")

    def _pad(self, size: int) -> None:
        self._file.write(bytes(padded(size, self._alignment) - size))

    def __enter__(self) -> GGUFWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.abort()
        elif not self._file.closed:
            self.finish()


def _octets(data: Octets | NDArray[Any]) -> memoryview:
    if isinstance(data, np.ndarray):
        return np.ascontiguousarray(data).reshape(-1).view(np.uint8).data
    return memoryview(data).cast("B")
