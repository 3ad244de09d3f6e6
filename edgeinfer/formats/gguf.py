"""GGUF files: metadata and tensors, mapped into memory and never copied.

    with open_gguf("model.gguf") as model:
        layers = model.require("llama.block_count", int)
        octets = model.data("token_embd.weight")

Writing is ``GGUFWriter``; reading a header alone is ``parse_header``.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType

import numpy as np
from numpy.typing import NDArray

from edgeinfer.errors import ClosedError, CorruptFileError, UsageError
from edgeinfer.formats.gguf_header import Header, ShortPrefixError, TensorInfo, parse_header
from edgeinfer.formats.gguf_writer import GGUFWriter
from edgeinfer.formats.mapped import Parts, map_file, sibling
from edgeinfer.formats.metadata import Metadata, MetadataValue, T, ValueType

__all__ = [
    "GGUFFile",
    "GGUFWriter",
    "Header",
    "Metadata",
    "MetadataValue",
    "ShortPrefixError",
    "TensorInfo",
    "ValueType",
    "merge_headers",
    "open_gguf",
    "parse_header",
]

MAX_SHARDS = 1024
_SHARD_NAME = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


class GGUFFile:
    """An open model: one file, or the shards of a split one as if they were one.

    Attributes:
        path: the file that was opened.
        version: of the GGUF format, 2 or 3.
        alignment: bytes that each tensor's data is padded to.
        metadata: the keys in file order; ``metadata.types`` has their types. Numeric
            and boolean arrays are read-only numpy arrays, arrays of strings lists. The
            ``split.*`` keys of a split model are left out.
        tensors: where the tensors are, in file order.
    """

    path: Path
    version: int
    alignment: int
    metadata: Metadata
    tensors: Mapping[str, TensorInfo]

    def __init__(self, path: Path, header: Header, maps: dict[Path, mmap.mmap | bytes]) -> None:
        self.path = path
        self.version = header.version
        self.alignment = header.alignment
        self.metadata = header.metadata
        self.tensors = header.tensors
        self._maps: dict[Path, mmap.mmap | bytes] | None = maps
        self._parts = Parts()

    @property
    def metadata_types(self) -> Mapping[str, ValueType]:
        """Each key's type in the file."""
        return self.metadata.types

    def require(self, key: str, kind: type[T]) -> T:
        """Returns the value of a key that must be there; see ``Metadata.require``."""
        return self.metadata.require(key, kind)

    def data(self, name: str) -> NDArray[np.uint8]:
        """Returns a tensor's bytes, (nbytes,), as a read-only view of the file.

        Views stay valid after ``close``: they keep the map alive.

        Raises:
            CorruptFileError: there is no such tensor.
            ClosedError: the file is closed.
        """
        info, maps = self._find(name)
        return np.frombuffer(maps[info.path], np.uint8, info.nbytes, info.offset)

    def read(self, name: str, first: int, last: int) -> NDArray[np.uint8]:
        """Returns a part of a tensor's bytes, (last - first,), read from the file.

        Raises:
            CorruptFileError: there is no such tensor, or the file was cut off meanwhile.
            EdgeInferError: the file cannot be read.
            ClosedError: it is closed.
        """
        info, _ = self._find(name)
        return self._parts.read(info.path, info.offset + first, last - first)

    def _find(self, name: str) -> tuple[TensorInfo, dict[Path, mmap.mmap | bytes]]:
        if self._maps is None:
            raise ClosedError(f"{self.path}: closed")
        info = self.tensors.get(name)
        if info is None:
            raise CorruptFileError(f"{self.path}: tensor {name!r} is missing")
        return info, self._maps

    def close(self) -> None:
        """Lets go of the file; the map itself goes with the last view of it."""
        self._maps = None

    def __enter__(self) -> GGUFFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_gguf(path: str | os.PathLike[str]) -> GGUFFile:
    """Opens a GGUF file; of a split model the first shard, which brings the others.

    Raises:
        NotFoundError: the file, or a shard beside it, does not exist.
        CorruptFileError: not a GGUF file, or one that contradicts itself.
        UnsupportedError: a GGUF file of a kind that cannot be read.
        UsageError: the file is a shard other than the first.
    """
    path = Path(path)
    map_ = map_file(path)
    header = parse_header(map_, path=path)
    if header.metadata.optional("split.count", int, 0) > 1:
        return _open_split(path, map_, header)
    return GGUFFile(path, header, {path: map_})


def _open_split(path: Path, first_map: mmap.mmap | bytes, first: Header) -> GGUFFile:
    count = first.metadata.require("split.count", int)
    named = _SHARD_NAME.fullmatch(path.name)
    if count > MAX_SHARDS:
        raise CorruptFileError(f"{path}: split into {count} files, at most {MAX_SHARDS} can be")
    if named is None or int(named[3]) != count:
        raise CorruptFileError(
            f"{path}: one of {count} shards, but its name does not say so",
            hint=f"name the shards NAME-00001-of-{count:05}.gguf and so on",
        )
    if int(named[2]) != 1:
        raise UsageError(
            f"{path}: shard {int(named[2])} of {count}",
            hint=f"open the first, {named[1]}-00001-of-{count:05}.gguf",
        )
    maps: dict[Path, mmap.mmap | bytes] = {path: first_map}
    headers = [first]
    for number in range(2, count + 1):
        shard = sibling(path, f"{named[1]}-{number:05}-of-{count:05}.gguf")
        maps[shard] = map_file(shard)
        headers.append(parse_header(maps[shard], path=shard))
    return GGUFFile(path, merge_headers(list(maps), headers), maps)


def merge_headers(paths: list[Path], headers: list[Header]) -> Header:
    """Returns the headers of a split model's files, in order, as if they were one file's.

    Raises:
        CorruptFileError: they do not belong together.
    """
    first = headers[0]
    tensors: dict[str, TensorInfo] = {}
    for number, (path, header) in enumerate(zip(paths, headers, strict=True)):
        for key, expected in (("split.no", number), ("split.count", len(headers))):
            if header.metadata.require(key, int) != expected:
                raise CorruptFileError(
                    f"{path}: key {key!r} is {header.metadata[key]}, expected {expected}"
                )
        for name, info in header.tensors.items():
            if name in tensors:
                raise CorruptFileError(
                    f"{path}: tensor {name!r} is in {tensors[name].path.name} already"
                )
            tensors[name] = info
    total = first.metadata.require("split.tensors.count", int)
    if len(tensors) != total:
        raise CorruptFileError(f"{paths[0]}: {total} tensors announced, {len(tensors)} found")
    return Header(
        version=first.version,
        alignment=first.alignment,
        metadata=first.metadata.without("split."),
        tensors=MappingProxyType(tensors),
        nbytes=first.nbytes,
        data_end=first.data_end,
    )
