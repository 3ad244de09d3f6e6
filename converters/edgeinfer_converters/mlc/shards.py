"""The files of weights: params_shard_N.bin, and tensor-cache.json that says what is where.

Tensors fill shards of 32 MiB in order; one of 16 MiB or more that no longer fits gets a shard
for itself at once, while what was collected before waits. So does TVM's own writer, and the
files are the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgeinfer_converters.mlc.packing import STORED, bfloat16_bits

SHARD_BYTES = 32 << 20
INDEX = "tensor-cache.json"
OLD_INDEX = "ndarray-cache.json"  # its name until September 2025, the same inside
AS_BFLOAT16 = "f32-to-bf16"
AS_IT_IS = "raw"
_HASHED = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A tensor in a file.

    Attributes:
        shape: as it is stored.
        dtype: a key of ``STORED``.
        format: ``AS_BFLOAT16`` stores float32 in 16 bits, which a loader widens; it says
            nothing about other types.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    format: str = AS_BFLOAT16

    @property
    def halved(self) -> bool:
        """Whether float32 is stored in 16 bits."""
        return self.dtype == "float32" and self.format == AS_BFLOAT16

    @property
    def itemsize(self) -> int:
        """Bytes of a value in the file."""
        return 2 if self.halved else int(STORED[self.dtype].itemsize)

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return prod(self.shape) * self.itemsize

    @property
    def loaded_bytes(self) -> int:
        """Bytes after loading."""
        return prod(self.shape) * int(STORED[self.dtype].itemsize)


def shard(records: Sequence[Record]) -> list[list[Record]]:
    """Returns what each shard holds."""
    shards: list[list[Record]] = []
    waiting: list[Record] = []
    size = 0
    for record in records:
        if size + record.nbytes >= SHARD_BYTES:
            if 2 * record.nbytes >= SHARD_BYTES:
                shards.append([record])
                continue
            if waiting:
                shards.append(waiting)
            waiting, size = [], 0
        waiting.append(record)
        size += record.nbytes
    if waiting:
        shards.append(waiting)
    return shards


@dataclass(slots=True)
class _Place:
    record: Record
    shard: int
    offset: int


class ShardWriter:
    """Writes tensors in any order, and pieces of them, to their places in the shards.

    Args:
        folder: exists.
        records: all tensors.
    """

    def __init__(self, folder: Path, records: Sequence[Record]) -> None:
        self.folder = folder
        self.records = records
        self._shards = shard(records)
        self._places: dict[str, _Place] = {}
        self._left: list[int] = []
        for number, held in enumerate(self._shards):
            offset = 0
            for record in held:
                self._places[record.name] = _Place(record, number, offset)
                offset += record.nbytes
            self._left.append(offset)
        self._open: dict[int, BinaryIO] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all shards."""
        return sum(record.nbytes for record in self.records)

    def write(self, name: str, values: NDArray[Any], first: int = 0) -> int:
        """Writes rows of a tensor from row ``first`` on; returns the bytes."""
        place = self._places[name]
        octets = self._octets(place.record, values)
        row = prod(place.record.shape[1:]) * place.record.itemsize
        self._put(place, first * row, octets.data.cast("B"))
        return octets.nbytes

    def write_columns(self, name: str, values: NDArray[Any], first: int) -> int:
        """Writes columns of a matrix from column ``first`` on; ``values`` has them as rows."""
        place = self._places[name]
        octets = self._octets(place.record, values.T)
        row = place.record.shape[1] * place.record.itemsize
        for number, piece in enumerate(octets):
            self._put(place, number * row + first * place.record.itemsize, piece.data.cast("B"))
        return octets.nbytes

    def finish(self, parameters: int) -> None:
        """Writes tensor-cache.json under both names.

        Args:
            parameters: how many weights the model has.
        """
        assert not any(self._left) and not self._open
        size = sum(record.loaded_bytes for record in self.records)
        index = {
            "metadata": {
                "ParamSize": len(self.records),
                "ParamBytes": float(size),
                "BitsPerParam": size * 8.0 / parameters,
            },
            "records": [self._entry(number, held) for number, held in enumerate(self._shards)],
        }
        for name in (INDEX, OLD_INDEX):
            (self.folder / name).write_text(json.dumps(index, indent=4), encoding="utf-8")

    def _octets(self, record: Record, values: NDArray[Any]) -> NDArray[Any]:
        if record.halved:
            return bfloat16_bits(values)
        octets = np.ascontiguousarray(values)
        assert octets.itemsize == record.itemsize, record
        return octets

    def _put(self, place: _Place, offset: int, octets: memoryview) -> None:
        number = place.shard
        file = self._open.get(number)
        if file is None:
            file = self._open[number] = (self.folder / _name(number)).open("xb", buffering=0)
        file.seek(place.offset + offset)
        self._left[number] -= octets.nbytes
        while octets:  # an unbuffered file may take less
            octets = octets[file.write(octets) :]
        if self._left[number] == 0:
            self._open.pop(number).close()

    def _entry(self, number: int, held: Sequence[Record]) -> dict[str, Any]:
        path = self.folder / _name(number)
        return {
            "dataPath": path.name,
            "format": "raw-shard",
            "nbytes": path.stat().st_size,
            "records": [
                {
                    "name": record.name,
                    "shape": list(record.shape),
                    "dtype": record.dtype,
                    "format": record.format,
                    "nbytes": record.nbytes,
                    "byteOffset": self._places[record.name].offset,
                }
                for record in held
            ],
            "md5sum": _md5(path),
        }

    def close(self) -> None:
        """Closes the files of shards that are not complete."""
        for file in self._open.values():
            file.close()
        self._open.clear()


def _name(number: int) -> str:
    return f"params_shard_{number}.bin"


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while octets := file.read(_HASHED):
            digest.update(octets)
    return digest.hexdigest()
