"""Low-rank adapters as GGUF files, in the form that llama.cpp reads and writes.

``general.type`` is "adapter", ``adapter.type`` is "lora"; each adapted tensor NAME has
``NAME.lora_a`` (rank, columns) and ``NAME.lora_b`` (rows, rank), and changes by
alpha / rank * B A.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeinfer.arch.lora import LowRank
from edgeinfer.errors import CorruptFileError, UnsupportedError
from edgeinfer.formats.gguf import GGUFFile, open_gguf
from edgeinfer.quant import by_ggml_id, decode

A, B = ".lora_a", ".lora_b"
MADE_BY = "edgeinfer convert MODEL --lora FOLDER makes one of a PEFT adapter"


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRankShape:
    """The change of a tensor (rows, columns) without its values."""

    rank: int
    shape: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterHeader:
    """What an adapter file says before its values.

    Attributes:
        path: the file.
        architecture: of the model it was made for.
        alpha: what B A is multiplied by, over the rank; 0 is no scale.
        shapes: tensor of the model -> the shape of its change.
        nbytes: of the tensors in the file.
    """

    path: Path
    architecture: str
    alpha: float
    shapes: Mapping[str, LowRankShape]
    nbytes: int

    @property
    def float_bytes(self) -> int:
        """Bytes of the values as float32."""
        return sum(4 * change.rank * sum(change.shape) for change in self.shapes.values())


class Adapter:
    """An open adapter file.

    Attributes:
        header: what it says before its values.
    """

    def __init__(self, file: GGUFFile) -> None:
        self.header = _header(file)
        self._file = file

    def changes(self) -> Iterator[tuple[str, LowRank]]:
        """Reads tensor after tensor of the model, and how it changes.

        Raises:
            CorruptFileError: a value is no finite number, or the file was cut off meanwhile.
        """
        for name in self.header.shapes:
            yield name, _change(self._file, name, self.header.alpha)

    def __enter__(self) -> Adapter:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def open_adapter(path: str | os.PathLike[str]) -> Adapter:
    """Opens an adapter.

    Raises:
        NotFoundError: there is no such file.
        CorruptFileError: it is damaged, or no adapter.
        UnsupportedError: an adapter of another kind.
    """
    if os.path.isdir(path):
        raise CorruptFileError(f"{os.fspath(path)}: a folder, not a GGUF file", hint=MADE_BY)
    file = open_gguf(path)
    try:
        return Adapter(file)
    except BaseException:
        file.close()
        raise


def read_header(path: str | os.PathLike[str]) -> AdapterHeader:
    """Reads an adapter without its values; raises as ``open_adapter``."""
    with open_adapter(path) as adapter:
        return adapter.header


def _header(file: GGUFFile) -> AdapterHeader:
    if file.metadata.get("general.type") != "adapter":
        raise CorruptFileError(
            f"{file.path}: not an adapter ('general.type' is not 'adapter')",
            hint=MADE_BY,
        )
    kind = file.metadata.get("adapter.type")
    if kind != "lora" or "adapter.alora.invocation_tokens" in file.metadata:
        raise UnsupportedError(f"{file.path}: an adapter of type {kind!r}", hint="lora is known")
    alpha = float(file.require("adapter.lora.alpha", float))
    if not math.isfinite(alpha):
        raise CorruptFileError(f"{file.path}: 'adapter.lora.alpha' is {alpha}")
    names = {name.removesuffix(A).removesuffix(B) for name in file.tensors}
    return AdapterHeader(
        path=Path(file.path),
        architecture=file.require("general.architecture", str),
        alpha=alpha,
        shapes={name: _shape(file, name) for name in sorted(names)},
        nbytes=sum(info.nbytes for info in file.tensors.values()),
    )


def _shape(file: GGUFFile, name: str) -> LowRankShape:
    shapes = []
    for suffix in (A, B):
        info = file.tensors.get(name + suffix)
        if info is None:
            raise CorruptFileError(f"{file.path}: tensor '{name}{suffix}' is missing")
        if len(info.shape) != 2:
            raise UnsupportedError(f"{file.path}: tensor '{name}{suffix}' has shape {info.shape}")
        shapes.append(info.shape)
    (rank, columns), (rows, other) = shapes
    if not rank or not rows or not columns:
        raise CorruptFileError(f"{file.path}: the change of {name!r} is empty")
    if rank != other:
        raise CorruptFileError(f"{file.path}: the ranks of {name!r} are {rank}, {other}")
    return LowRankShape(rank=rank, shape=(rows, columns))


def _change(file: GGUFFile, name: str, alpha: float) -> LowRank:
    a, b = (_values(file, name + suffix) for suffix in (A, B))
    # llama.cpp takes an alpha of 0 for none.
    b *= np.float32(alpha / a.shape[0] if alpha else 1.0)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise CorruptFileError(f"{file.path}: {name!r} has a value that is not a finite number")
    return LowRank(a=a, b=b)


def _values(file: GGUFFile, name: str) -> NDArray[np.float32]:
    info = file.tensors[name]
    rows, columns = info.shape
    octets = file.read(name, 0, info.nbytes).reshape(rows, -1)
    return decode(by_ggml_id(info.ggml_id), octets, columns)
