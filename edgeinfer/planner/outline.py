"""What plans are made of: a model's numbers and tensors, without its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeinfer.arch import config_from_gguf, gguf_architecture, numbers_from_hf
from edgeinfer.arch.config import ModelConfig
from edgeinfer.arch.spec import Architecture
from edgeinfer.arch.tensors import (
    LOOKED_UP,
    checkpoint_names,
    file_shape,
    is_packed,
    packed_shapes,
    repeated,
    split_name,
    usual_name,
)
from edgeinfer.arch.transforms import transform_of
from edgeinfer.errors import CorruptFileError
from edgeinfer.formats.ggml_types import BY_NAME
from edgeinfer.planner.quant_name import quant_name
from edgeinfer.planner.resident import merges_of

EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"


class Tensor(Protocol):
    """What is needed to know of a tensor of the file."""

    @property
    def type(self) -> str:
        """The quant type."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, cols) or (length,)."""


class ModelHeader(Protocol):
    """A GGUF file, or only its header."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Values by key."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Tensors by name."""


@dataclass(frozen=True, slots=True)
class Retyped:
    """A tensor as if it were of another type."""

    type: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outline:
    """A model as its header describes it, or as it would be in another quant type."""

    arch: Architecture
    config: ModelConfig
    tensors: Mapping[str, Tensor]
    quant: str
    longest_context: int  # tokens, with the file's RoPE scaling
    merges: int  # of the tokenizer
    surplus_bytes: int = 0  # what a file has beyond its tensors as they are thought to be
    kv_type: str = ""  # of the cache, where the files, which are no GGUF, fix it
    kv_types: tuple[str, ...] = ()  # of the cache, where what runs the files has only these

    @classmethod
    def of_gguf(cls, header: ModelHeader) -> Outline:
        """Reads an open GGUF file, or its parsed header.

        Raises:
            UnsupportedError: the architecture is not known.
            CorruptFileError: the header contradicts itself.
        """
        metadata = header.metadata
        config = config_from_gguf(_Shapes(header))
        return cls(
            arch=gguf_architecture(metadata),
            config=config,
            tensors=header.tensors,
            quant=quant_name(metadata, header.tensors),
            longest_context=_longest_context(metadata, config),
            merges=merges_of(metadata, config.vocab_size),
        )

    @classmethod
    def of_checkpoint(
        cls, settings: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
    ) -> Outline:
        """Reads a checkpoint's config.json and the shapes of its tensors, by checkpoint name.

        The tensors are of f16, under their GGUF names; the vocabulary is taken to have as many
        merges as tokens.

        Raises:
            UnsupportedError: the model class, or something of the checkpoint, is not known.
            CorruptFileError: a key or a tensor is missing or makes no sense.
        """
        arch, numbers = numbers_from_hf(settings)
        config = numbers.model_config(arch)
        found = {usual_name(arch, name): shape for name, shape in shapes.items()}
        tensors = {}
        names = checkpoint_names(arch, config, settings) | repeated(arch, config)
        for name, theirs in names.items():
            kind = split_name(name)[1]
            expected = file_shape(arch, config, name)
            stored = transform_of(arch, kind).stored(config, expected)
            # Of experts, a checkpoint may have a tensor each, or blocks and scales.
            packed = is_packed(arch, theirs, found)
            parts = {theirs: stored}
            if "{}" in theirs:
                parts = {theirs.format(i): stored[1:] for i in range(expected[0])}
            elif name in arch.padded and len(found.get(theirs, ())) == len(stored):
                parts = {theirs: (min(found[theirs][0], stored[0]), *stored[1:])}
            elif packed:
                parts = {theirs + end: shape for end, shape in packed_shapes(stored).items()}
            for part, wanted in parts.items():
                if found.get(part) != wanted:
                    raise CorruptFileError(
                        f"tensor {part!r} has the shape {found.get(part)}, expected {wanted}"
                    )
            kept = "mxfp4" if packed else "f16"
            tensors[name] = Retyped(kept if len(expected) > 1 else "f32", expected)
        return cls(
            arch=arch,
            config=config,
            tensors=tensors,
            quant="f16",
            longest_context=config.context,
            merges=config.vocab_size,
        )

    def retyped(self, quant: str, types: Mapping[str, str], surplus_bytes: int = 0) -> Outline:
        """The model with tensors of other types, by name."""
        tensors = {
            name: Retyped(types.get(name, tensor.type), tensor.shape)
            for name, tensor in self.tensors.items()
        }
        return replace(self, tensors=tensors, quant=quant, surplus_bytes=surplus_bytes)

    def share_used(self, name: str) -> float:
        """How much of a tensor a token is multiplied with: of experts, those chosen."""
        if name in LOOKED_UP:
            return 0.0
        config = self.config
        return config.experts_used / config.experts if "_exps." in name else 1.0

    @property
    def file_bytes(self) -> int:
        """Bytes of the tensors in a file."""
        return sum(map(tensor_bytes, self.tensors.values())) + self.surplus_bytes

    @property
    def parameters(self) -> int:
        """How many weights."""
        return sum(prod(tensor.shape) for tensor in self.tensors.values())


def tensor_bytes(tensor: Tensor) -> int:
    """Bytes of a tensor's data in a file."""
    kind = BY_NAME[tensor.type]
    return prod(tensor.shape) // kind.block * kind.nbytes


class _Shapes:
    """A header without data: sizes do not depend on the values of RoPE divisors."""

    def __init__(self, header: ModelHeader) -> None:
        self.metadata = header.metadata
        self.tensors = header.tensors

    def data(self, name: str) -> NDArray[np.uint8]:
        return np.ones(self.tensors[name].shape, np.float32).view(np.uint8)


def _longest_context(metadata: Mapping[str, Any], config: ModelConfig) -> int:
    """The trained context, or what the file's RoPE scaling stretches it to."""
    prefix = f"{metadata['general.architecture']}.rope.scaling."
    if metadata.get(prefix + "type", "none") == "none":
        return config.context
    factor = float(metadata.get(prefix + "factor", 1.0))
    original = metadata.get(prefix + "original_context_length", config.context)
    return max(config.context, int(factor * original))
