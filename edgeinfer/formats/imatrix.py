"""Importance matrices: how large the inputs of each matrix's columns are, as llama.cpp stores it.

For every matrix the sum of squares of each input column over the tokens of a text, and how many
tokens that were. Written as GGUF (llama.cpp's format since July 2025); the older format, plain
binary with the extension .dat, can be read too.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeinfer.errors import CorruptFileError, NotFoundError
from edgeinfer.formats.gguf import GGUFFile, open_gguf
from edgeinfer.formats.gguf_header import MAGIC
from edgeinfer.formats.gguf_writer import GGUFWriter
from edgeinfer.formats.metadata import ValueType

_SUMS, _COUNTS = ".in_sum2", ".counts"
_MOST_ENTRIES = 1 << 20  # of a .dat file, which says a count before anything bounds it


@dataclass(frozen=True, slots=True)
class ColumnSums:
    """What one tensor's inputs amount to.

    Attributes:
        squares: float32 (matrices, columns), sums over tokens; one matrix, or one per expert.
        counts: float32 (matrices,), tokens that each has seen.
    """

    squares: NDArray[np.float32]
    counts: NDArray[np.float32]

    def means(self) -> NDArray[np.float32]:
        """Mean squares, (matrices, columns).

        A matrix that has seen no token has ones, as in llama.cpp.
        """
        seen = self.counts > 0
        found = np.ones_like(self.squares, np.float32)
        found[seen] = self.squares[seen] / self.counts[seen, None]
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportanceMatrix:
    """An importance matrix of a model.

    Attributes:
        tensors: by the names of the model's tensors, such as "blk.0.attn_q.weight".
        chunks: pieces of text that were read.
        chunk_size: tokens of each.
        datasets: what the text was called.
    """

    tensors: Mapping[str, ColumnSums]
    chunks: int
    chunk_size: int
    datasets: tuple[str, ...] = ()

    def importance(self) -> dict[str, NDArray[np.float32]]:
        """What an encoder is told of each tensor: mean squares, (matrices, columns)."""
        return {name: sums.means() for name, sums in self.tensors.items()}


def write_imatrix(path: str | os.PathLike[str], matrix: ImportanceMatrix) -> None:
    """Writes the GGUF format; the file appears when it is complete."""
    with GGUFWriter(path) as writer:
        writer.add_metadata("general.type", "imatrix")
        writer.add_metadata("imatrix.datasets", list(matrix.datasets), ValueType.STRING)
        writer.add_metadata("imatrix.chunk_count", matrix.chunks, ValueType.U32)
        writer.add_metadata("imatrix.chunk_size", matrix.chunk_size, ValueType.U32)
        arrays = {}
        for name, sums in sorted(matrix.tensors.items()):
            arrays[name + _SUMS] = sums.squares
            arrays[name + _COUNTS] = sums.counts[:, None]
        for name, array in arrays.items():
            writer.declare_tensor(name, "f32", array.shape)
        writer.begin()
        for name, array in arrays.items():
            writer.write(name, np.ascontiguousarray(array, np.float32))


def read_imatrix(path: str | os.PathLike[str]) -> ImportanceMatrix:
    """Reads either format.

    Raises:
        NotFoundError: there is no such file.
        CorruptFileError: it is no importance matrix, or a damaged one.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"{path}: no such file")
    with path.open("rb") as file:
        is_gguf = file.read(len(MAGIC)) == MAGIC
    if not is_gguf:
        matrix = _read_dat(path)
    else:
        with open_gguf(path) as opened:
            matrix = _read_gguf(opened)
    for name, sums in matrix.tensors.items():
        if not np.isfinite(sums.squares).all() or (sums.squares < 0).any():
            raise CorruptFileError(f"{path}: {name!r} has a value that is no sum of squares")
    return matrix


def _read_gguf(file: GGUFFile) -> ImportanceMatrix:
    if file.metadata.get("general.type") != "imatrix":
        raise CorruptFileError(
            f"{file.path}: a GGUF file, but no importance matrix",
            hint="make one with edgeinfer calibrate, or llama-imatrix",
        )
    tensors = {}
    for name in file.tensors:
        if name.endswith(_SUMS):
            tensor = name.removesuffix(_SUMS)
            counts = _floats(file, tensor + _COUNTS)
            sums = _floats(file, name)
            if not counts.size or sums.size % counts.size:
                raise CorruptFileError(f"{file.path}: {tensor!r} has no matching counts")
            tensors[tensor] = ColumnSums(sums.reshape(counts.size, -1), counts)
    datasets = file.metadata.get("imatrix.datasets", [])
    return ImportanceMatrix(
        tensors=tensors,
        chunks=file.metadata.optional("imatrix.chunk_count", int, 0),
        chunk_size=file.metadata.optional("imatrix.chunk_size", int, 0),
        datasets=tuple(datasets) if isinstance(datasets, list) else (),
    )


def _floats(file: GGUFFile, name: str) -> NDArray[np.float32]:
    if name in file.tensors and file.tensors[name].type != "f32":
        raise CorruptFileError(f"{file.path}: tensor {name!r} is not f32")
    return file.data(name).view(np.float32).copy()


def _read_dat(path: Path) -> ImportanceMatrix:
    """Reads int32 counts and lengths, names, and float32 (sum / tokens * chunks)."""
    octets = path.read_bytes()
    at = 0

    def take(size: int) -> bytes:
        nonlocal at
        if not 0 <= size <= len(octets) - at:
            raise CorruptFileError(f"{path}: not an importance matrix, or cut off")
        at += size
        return octets[at - size : at]

    def number() -> int:
        found: int = struct.unpack("<i", take(4))[0]
        return found

    entries = number()
    if not 1 <= entries <= _MOST_ENTRIES:
        raise CorruptFileError(f"{path}: not an importance matrix")
    tensors = {}
    for _ in range(entries):
        name = take(number()).decode("utf-8", errors="replace")
        calls = number()
        values = np.frombuffer(take(4 * number()), "<f4").astype(np.float32)
        tensors[name] = ColumnSums(values[None, :], np.array([calls], np.float32))
    chunks = 0
    datasets: tuple[str, ...] = ()
    if at < len(octets):  # older files end here
        chunks = number()
        datasets = (take(number()).decode("utf-8", errors="replace"),)
    return ImportanceMatrix(tensors=tensors, chunks=chunks, chunk_size=0, datasets=datasets)
