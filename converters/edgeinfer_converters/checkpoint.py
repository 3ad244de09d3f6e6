"""Where weights come from: a Hugging Face folder or a GGUF file.

Nothing but headers is read before it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from edgeinfer.arch import (
    Architecture,
    ModelConfig,
    engine_tensors,
    gguf_architecture,
    numbers_from_hf,
)
from edgeinfer.arch.from_gguf import read_gguf
from edgeinfer.errors import NotFoundError, UnsupportedError, UsageError
from edgeinfer.formats.gguf import open_gguf
from edgeinfer.formats.mlc.chat_config import NAME as MLC_NAME
from edgeinfer.formats.safetensors import open_checkpoint
from edgeinfer.quant import by_ggml_id
from edgeinfer_converters.json_files import read_json
from edgeinfer_converters.mapping import map_tensors
from edgeinfer_converters.pooling import read_pooling
from edgeinfer_converters.tensors import GgufTensor, Tensor


class Source(Protocol):
    """A model that can be converted.

    Attributes:
        path: what was given.
        arch: its family.
        config: its numbers.
        files: every file that holds weights.
        tensors: what the GGUF will hold, in its order.
    """

    path: Path
    arch: Architecture
    config: ModelConfig
    files: Sequence[Path]
    tensors: Sequence[Tensor]

    def close(self) -> None:
        """Lets go of the files."""


class HuggingFaceSource:
    """A folder with config.json and safetensors.

    Attributes:
        settings: config.json.
        numbers: the model's.
        stated: ``general.*`` keys of a GGUF, beside those that are made from the folder's files.
    """

    stated: Mapping[str, Any] = MappingProxyType({})
    files: Sequence[Path]
    tensors: Sequence[Tensor]

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings = read_json(path / "config.json")
        self.arch, self.numbers = numbers_from_hf(self.settings)
        self._checkpoint = open_checkpoint(path)
        pooling = read_pooling(path)
        if pooling is not None:
            # No logits are wanted of it, so its output matrix is often left out.
            headless = "lm_head.weight" not in self._checkpoint.tensors
            tied = self.arch.causal and (self.numbers.tied_output or headless)
            self.numbers = replace(self.numbers, pooling=pooling, tied_output=tied)
        self.config = self.numbers.model_config(self.arch)
        self.files = sorted({tensor.path for tensor in self._checkpoint.tensors.values()})
        self.tensors = map_tensors(self._checkpoint, self.arch, self.config, self.settings)

    def close(self) -> None:
        """Lets go of the files."""
        self._checkpoint.close()


class GgufSource:
    """A GGUF file, or the first of several shards."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.gguf = open_gguf(path)
        self.arch = gguf_architecture(self.gguf.metadata)
        self.numbers = read_gguf(self.gguf, self.arch)
        self.config = self.numbers.model_config(self.arch)
        tensors = self.gguf.tensors
        engine_tensors(self.arch, self.config, {name: t.shape for name, t in tensors.items()})
        self.files = sorted({tensor.path for tensor in tensors.values()})
        self.tensors = [
            GgufTensor(
                name=name,
                shape=tensor.shape,
                gguf=self.gguf,
                stored_type=by_ggml_id(tensor.ggml_id),
            )
            for name, tensor in tensors.items()
        ]

    def close(self) -> None:
        """Lets go of the file."""
        self.gguf.close()


def open_source(path: Path) -> HuggingFaceSource | GgufSource:
    """Opens a Hugging Face folder, an MLC folder or a GGUF file.

    Raises:
        NotFoundError: there is nothing, or nothing that is a model.
        CorruptFileError: a file is broken, or a tensor is missing; named.
        UnsupportedError: the family, or something in it, is not known; named.
    """
    if path.is_dir():
        if (path / MLC_NAME).is_file():
            from edgeinfer_converters.mlc.source import MlcSource

            return MlcSource(path)
        _refuse_onnx(path, path.iterdir())
        return HuggingFaceSource(path)
    if not path.exists():
        raise NotFoundError(f"{path}: no such file or folder")
    if path.suffix == ".safetensors":
        raise UsageError(f"{path}: a file of a checkpoint", hint=f"give its folder, {path.parent}")
    _refuse_onnx(path, [path])
    return GgufSource(path)


def _refuse_onnx(path: Path, files: Iterable[Path]) -> None:
    """Refuses what is ONNX and nothing else; checkpoints may have a graph beside their weights."""
    kinds = {file.suffix for file in files}
    if ".onnx" in kinds and not kinds & {".safetensors", ".bin"}:
        raise UnsupportedError(
            f"{path} is an exported ONNX model, which nothing else can be made of",
            hint="convert the model that it was exported from",
        )
