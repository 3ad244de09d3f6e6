"""Checkpoints in safetensors: one file or many, mapped, read a tensor or a few rows at a time.

with open_checkpoint("SmolLM2-135M") as checkpoint:
    for name, tensor in checkpoint.tensors.items():
        for first in range(0, tensor.shape[0], 1024):
            rows = checkpoint.read_float32(name, rows=slice(first, first + 1024))
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeinfer.errors import ClosedError, CorruptFileError, NotFoundError, UnsupportedError
from edgeinfer.formats.mapped import Parts, map_file, sibling
from edgeinfer.formats.safetensors_header import (
    MAX_HEADER,
    StoredTensor,
    parse_safetensors_header,
)
from edgeinfer.formats.untrusted_json import parse_json

__all__ = ["Checkpoint", "StoredTensor", "open_checkpoint"]

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_SHARDS = 1024
# Formats that run code when they are read.
UNSAFE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")

# numpy has no bfloat16: its bits are kept as uint16.
_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("<i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("<u1"),
    "BOOL": np.dtype("<u1"),
    "C64": np.dtype("<c8"),
}


class Checkpoint:
    """The tensors of a model in safetensors, over all its files.

    Attributes:
        path: the file or folder that was opened.
        tensors: where they are, file by file, in the order of their data.
    """

    path: Path
    tensors: Mapping[str, StoredTensor]

    def __init__(
        self,
        path: Path,
        tensors: Mapping[str, StoredTensor],
        maps: Mapping[Path, mmap.mmap | bytes],
    ) -> None:
        self.path = path
        self.tensors = MappingProxyType(tensors)
        self._maps: Mapping[Path, mmap.mmap | bytes] | None = maps
        self._parts = Parts()

    def read(self, name: str) -> NDArray[Any]:
        """Returns a tensor as a read-only view of the file; BF16 as its bits in uint16.

        Views stay valid after ``close``: they keep the map alive.

        Raises:
            CorruptFileError: there is no such tensor.
            UnsupportedError: its type is one that numpy cannot hold, such as F8_E4M3.
            ClosedError: the checkpoint is closed.
        """
        tensor, dtype, maps = self._find(name)
        count = tensor.nbytes // dtype.itemsize
        flat = np.frombuffer(maps[tensor.path], dtype, count, tensor.offset)
        return flat.reshape(tensor.shape)

    def read_float32(self, name: str, rows: slice | None = None) -> NDArray[np.float32]:
        """Returns a tensor of floats, or the rows ``rows`` of it, as float32, read from the file.

        Raises:
            UnsupportedError: the tensor is not of floats of 16 bits or more.
            EdgeInferError: the file cannot be read.
            CorruptFileError, ClosedError: as ``read``.
        """
        values = self.read_rows(name, rows)
        dtype = self.tensors[name].dtype
        if dtype == "BF16":
            # A bfloat16 is the upper half of a float32.
            return (values.astype(np.uint32) << 16).view(np.float32)
        if values.dtype.kind != "f":
            raise UnsupportedError(f"{self.path}: tensor {name!r} is {dtype}, not floats")
        return values.astype(np.float32, copy=False)

    def read_rows(self, name: str, rows: slice | None = None) -> NDArray[Any]:
        """Returns a tensor, or the rows ``rows`` of it, read from the file; BF16 as its bits.

        Raises:
            EdgeInferError: the file cannot be read.
            CorruptFileError, UnsupportedError, ClosedError: as ``read``.
        """
        tensor, numpy_type, _ = self._find(name)
        first, last, _ = (rows or slice(None)).indices(tensor.shape[0] if tensor.shape else 1)
        row_bytes = tensor.nbytes // max(tensor.shape[0] if tensor.shape else 1, 1)
        count = max(last - first, 0)
        octets = self._parts.read(tensor.path, tensor.offset + first * row_bytes, count * row_bytes)
        shape = (count, *tensor.shape[1:]) if tensor.shape else ()
        values: NDArray[Any] = octets.view(numpy_type).reshape(shape)
        return values

    def _find(
        self, name: str
    ) -> tuple[StoredTensor, np.dtype[Any], Mapping[Path, mmap.mmap | bytes]]:
        if self._maps is None:
            raise ClosedError(f"{self.path}: closed")
        tensor = self.tensors.get(name)
        if tensor is None:
            raise CorruptFileError(f"{self.path}: tensor {name!r} is missing")
        dtype = _DTYPES.get(tensor.dtype)
        if dtype is None:
            raise UnsupportedError(
                f"{tensor.path}: tensor {name!r} is {tensor.dtype}",
                hint="take the checkpoint in BF16, F16 or F32",
            )
        return tensor, dtype, self._maps

    def close(self) -> None:
        """Lets go of the files; each map goes with the last view of it."""
        self._maps = None

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Opens a folder with safetensors, a ``.safetensors`` file, or a ``.index.json``.

    Raises:
        NotFoundError: there is no such file, or no safetensors in the folder.
        CorruptFileError: a file that contradicts itself, or the index.
        UnsupportedError: the weights are in a format that runs code when it is read.
    """
    path = Path(path)
    file = _main_file(path) if path.is_dir() else path
    if file.suffix in UNSAFE_SUFFIXES:
        raise _unsafe(file)
    if file.name.endswith(".index.json"):
        return _open_shards(path, file)
    map_ = map_file(file)
    return Checkpoint(path, parse_safetensors_header(map_, path=file), {file: map_})


def _main_file(folder: Path) -> Path:
    for name in (SINGLE, INDEX):
        if (folder / name).exists():
            return folder / name
    for file in sorted(folder.iterdir()):
        if file.suffix in UNSAFE_SUFFIXES:
            raise _unsafe(file)
    raise NotFoundError(f"{folder}: no {SINGLE} and no {INDEX} in it")


def _unsafe(file: Path) -> UnsupportedError:
    return UnsupportedError(
        f"{file}: weights in a format that runs code when it is read",
        hint="take the model's safetensors, or save it again with save_pretrained",
    )


def _open_shards(path: Path, index: Path) -> Checkpoint:
    weight_map = _read_index(index)
    maps: dict[Path, mmap.mmap | bytes] = {}
    tensors: dict[str, StoredTensor] = {}
    for shard_name in dict.fromkeys(list(weight_map.values())):
        shard = sibling(index, shard_name)
        maps[shard] = map_file(shard)
        for name, tensor in parse_safetensors_header(maps[shard], path=shard).items():
            # A tensor that the index forgets is taken, one that it places elsewhere is not.
            place = weight_map.setdefault(name, shard_name)
            if place != shard_name:
                raise CorruptFileError(
                    f"{shard}: tensor {name!r:.160} is here, but also in {place!r:.80}"
                )
            tensors[name] = tensor
    for name, shard_name in weight_map.items():
        if name not in tensors:
            raise CorruptFileError(f"{index}: tensor {name!r:.160} is not in {shard_name}")
    return Checkpoint(path, tensors, maps)


def _read_index(index: Path) -> dict[str, str]:
    octets = map_file(index)
    if len(octets) > MAX_HEADER:
        raise CorruptFileError(f"{index}: {len(octets)} bytes, at most {MAX_HEADER} can be")
    try:
        weight_map = parse_json(octets[:]).get("weight_map")
    except ValueError as error:
        raise CorruptFileError(f"{index}: not valid: {error}") from None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CorruptFileError(f"{index}: weight_map is missing, empty or no object")
    for name, shard_name in weight_map.items():
        if not isinstance(shard_name, str) or not shard_name.endswith(".safetensors"):
            raise CorruptFileError(
                f"{index}: tensor {name!r:.160} is in {shard_name!r:.80}, not a safetensors file"
            )
    shards = len(set(weight_map.values()))
    if shards > MAX_SHARDS:
        raise CorruptFileError(f"{index}: {shards} files, at most {MAX_SHARDS} can be")
    return weight_map
