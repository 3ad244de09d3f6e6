"""The registry of architectures: one module of this package a family."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from edgeinfer.arch.config import ModelConfig
from edgeinfer.arch.from_gguf import GgufSource, read_gguf
from edgeinfer.arch.from_hf import read_hf
from edgeinfer.arch.hyperparameters import Hyperparameters
from edgeinfer.arch.spec import Architecture
from edgeinfer.arch.tensors import EngineTensor, engine_tensors
from edgeinfer.errors import CorruptFileError, UnsupportedError

__all__ = [
    "Architecture",
    "EngineTensor",
    "ModelConfig",
    "architectures",
    "by_gguf_name",
    "by_hf_class",
    "config_from_gguf",
    "config_from_hf",
    "engine_tensors",
    "gguf_architecture",
    "numbers_from_hf",
]


@cache
def architectures() -> tuple[Architecture, ...]:
    """Returns every family, by module name."""
    modules = (import_module(f"{__name__}.{m.name}") for m in iter_modules(__path__))
    return tuple(m.ARCHITECTURE for m in modules if hasattr(m, "ARCHITECTURE"))


def by_gguf_name(name: str) -> Architecture:
    """Finds the family of a GGUF file from general.architecture.

    Raises:
        UnsupportedError: no family has that name.
    """
    known = {arch.name: arch for arch in architectures() if arch.variant_of is None}
    return _known(known, name, "architecture")


def by_hf_class(name: str) -> Architecture:
    """Finds the family of a checkpoint from "architectures" of its config.json.

    Raises:
        UnsupportedError: no family has that class.
    """
    known = {cls: arch for arch in architectures() for cls in arch.hf_classes}
    return _known(known, name, "model class")


def _known(known: Mapping[str, Architecture], name: str, kind: str) -> Architecture:
    if name not in known:
        raise UnsupportedError(
            f"{kind} {name!r} is not supported", hint=f"known: {', '.join(sorted(known))}"
        )
    return known[name]


def config_from_hf(config: Mapping[str, Any], context: int | None = None) -> ModelConfig:
    """Reads the numbers of a checkpoint's config.json; see ``config_from_gguf``."""
    arch, numbers = numbers_from_hf(config)
    return numbers.model_config(arch, context)


def numbers_from_hf(config: Mapping[str, Any]) -> tuple[Architecture, Hyperparameters]:
    """Finds the family of a config.json and reads its numbers, unresolved.

    Raises:
        UnsupportedError: the class, or something the checkpoint asks of it, is not known.
        CorruptFileError: a key is missing or makes no sense; named.
    """
    classes = config.get("architectures")
    if not (isinstance(classes, list) and classes and isinstance(classes[0], str)):
        raise CorruptFileError("config.json: 'architectures' is missing or not a list of names")
    arch = by_hf_class(classes[0])
    return arch, read_hf(config, arch)


def config_from_gguf(gguf: GgufSource, context: int | None = None) -> ModelConfig:
    """Reads the numbers of a GGUF file.

    Args:
        gguf: an open file; only metadata, tensor shapes and RoPE divisors are read.
        context: tokens a sequence will have at most, None for the trained context. As in
            llama.cpp it decides whether LongRoPE's long or short divisors are taken.

    Raises:
        UnsupportedError: the architecture, or something the file asks of it, is not known.
        CorruptFileError: a key is missing or makes no sense; named.
    """
    arch = gguf_architecture(gguf.metadata)
    return read_gguf(gguf, arch).model_config(arch, context)


def gguf_architecture(metadata: Mapping[str, Any]) -> Architecture:
    """Finds the family of a GGUF file from its metadata.

    Raises:
        CorruptFileError: the file does not say.
        UnsupportedError: the family is not known.
    """
    name = metadata.get("general.architecture")
    if not isinstance(name, str):
        raise CorruptFileError("key 'general.architecture' is missing or not a string")
    return by_gguf_name(name)
