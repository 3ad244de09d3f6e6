"""Low-rank adapters as GGUF files, in the form that llama.cpp reads and writes.

``general.type`` is "adapter", ``adapter.type`` is "lora"; each adapted tensor NAME has
``NAME.lora_a`` (rank, columns) and ``NAME.lora_b`` (rows, rank), and changes by
alpha / rank * B A.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgeinfer.arch.lora import LowRank
from edgeinfer.errors import CorruptFileError, UnsupportedError
from edgeinfer.formats.gguf import GGUFFile, open_gguf
from edgeinfer.quant import by_ggml_id, decode

A, B = ".lora_a", ".lora_b"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """An adapter file.

    Attributes:
        architecture: of the model it was made for.
        changes: tensor of the model -> its change.
    """

    architecture: str
    changes: Mapping[str, LowRank]


def read_adapter(path: str | os.PathLike[str]) -> Adapter:
    """Reads an adapter.

    Raises:
        NotFoundError: there is no such file.
        CorruptFileError: it is damaged, or no adapter.
        UnsupportedError: an adapter of another kind.
    """
    with open_gguf(path) as file:
        if file.metadata.get("general.type") != "adapter":
            raise CorruptFileError(
                f"{file.path}: not an adapter ('general.type' is not 'adapter')",
                hint="edgeinfer convert MODEL --lora FOLDER makes one of a PEFT adapter",
            )
        kind = file.metadata.get("adapter.type")
        if kind != "lora" or "adapter.alora.invocation_tokens" in file.metadata:
            raise UnsupportedError(
                f"{file.path}: an adapter of type {kind!r}", hint="lora is known"
            )
        alpha = float(file.require("adapter.lora.alpha", float))
        architecture = file.require("general.architecture", str)
        names = {name.removesuffix(A).removesuffix(B) for name in file.tensors}
        changes = {name: _change(file, name, alpha) for name in sorted(names)}
    return Adapter(architecture=architecture, changes=changes)


def _change(file: GGUFFile, name: str, alpha: float) -> LowRank:
    parts = []
    for suffix in (A, B):
        info = file.tensors.get(name + suffix)
        if info is None:
            raise CorruptFileError(f"{file.path}: tensor '{name}{suffix}' is missing")
        if len(info.shape) != 2:
            raise UnsupportedError(f"{file.path}: tensor '{name}{suffix}' has shape {info.shape}")
        rows, columns = info.shape
        octets = file.data(name + suffix).reshape(rows, -1)
        parts.append(decode(by_ggml_id(info.ggml_id), octets, columns))
    a, b = parts
    if a.shape[0] != b.shape[1]:
        raise CorruptFileError(f"{file.path}: the ranks of {name!r} are {a.shape[0]}, {b.shape[1]}")
    # llama.cpp takes an alpha of 0 for none.
    scale = np.float32(alpha / a.shape[0] if alpha else 1.0)
    if not (np.isfinite(a).all() and np.isfinite(b).all() and np.isfinite(scale)):
        raise CorruptFileError(f"{file.path}: {name!r} has a value that is not a finite number")
    return LowRank(a=np.ascontiguousarray(a), b=np.ascontiguousarray(b * scale))
