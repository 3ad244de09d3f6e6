"""Which tensor of a checkpoint becomes which of a GGUF: all used, none missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeinfer.arch import Architecture, ModelConfig
from edgeinfer.arch.spec import MODEL_TENSORS
from edgeinfer.arch.tensors import (
    checkpoint_names,
    file_shape,
    is_packed,
    packed_shapes,
    repeated,
    split_name,
    unread,
    usual_name,
)
from edgeinfer.arch.transforms import transform_of
from edgeinfer.errors import CorruptFileError, UnsupportedError
from edgeinfer.formats.safetensors import Checkpoint
from edgeinfer_converters.experts import BlockExperts, FloatExperts, LastExpert
from edgeinfer_converters.tensors import CheckpointTensor, PaddedTensor, StackedTensor, Tensor

# Buffers that old versions of transformers saved beside the weights.
_BUFFERS = (".rotary_emb.inv_freq",)


def map_tensors(
    checkpoint: Checkpoint,
    arch: Architecture,
    config: ModelConfig,
    settings: Mapping[str, Any],
) -> list[Tensor]:
    """Finds every tensor of a model in its checkpoint.

    Raises:
        CorruptFileError: tensors are missing or have the wrong shape; named.
        UnsupportedError: the checkpoint has tensors the model has no place for; named.
    """
    spelled = {usual_name(arch, name): name for name in checkpoint.tensors}
    names = checkpoint_names(arch, config, settings) | repeated(arch, config)
    parts = {theirs: file_shape(arch, config, ours)[0] for ours, theirs in names.items()}
    wanted = [
        name
        for theirs in dict.fromkeys(names.values())
        for name in _each(theirs, parts[theirs], packed=is_packed(arch, theirs, spelled))
    ]
    missing = [theirs for theirs in wanted if theirs not in spelled]
    if missing:
        raise CorruptFileError(f"{checkpoint.path}: missing tensors: {_listed(missing)}")
    unknown = spelled.keys() - set(wanted) - set(unread(arch, config).values())
    if config.tied_output:
        unknown -= {MODEL_TENSORS["output.weight"]}  # a copy of the embeddings
    buffers = (*_BUFFERS, *arch.buffers)
    unknown = {name for name in unknown if not name.endswith(buffers) and not _skipped(arch, name)}
    if unknown:
        raise UnsupportedError(
            f"{checkpoint.path}: tensors that {arch.name} does not have: {_listed(unknown)}"
        )
    tensors: list[Tensor] = []
    last = LastExpert()
    for ours, theirs in names.items():
        expected = file_shape(arch, config, ours)
        packed = is_packed(arch, theirs, spelled)
        stored = [spelled[name] for name in _each(theirs, expected[0], packed=packed)]
        if "{}" in theirs:
            each = [_tensor(checkpoint, arch, config, ours, s, expected[1:]) for s in stored]
            tensors.append(StackedTensor(name=ours, parts=each))
        elif ours in arch.padded and len(found := checkpoint.tensors[stored[0]].shape) > 1:
            there = (min(found[0], expected[0]), *expected[1:])
            tensor = _tensor(checkpoint, arch, config, ours, stored[0], there)
            tensors.append(PaddedTensor(part=tensor, rows=expected[0]))
        elif packed or (len(expected) > 2 and _is_transposed(arch, ours)):
            tensors.append(_experts(checkpoint, arch, config, ours, stored, expected, last))
        else:
            tensors.append(_tensor(checkpoint, arch, config, ours, stored[0], expected))
    return tensors


def _is_transposed(arch: Architecture, ours: str) -> bool:
    return transform_of(arch, split_name(ours)[1]).transposed


def _each(theirs: str, parts: int, *, packed: bool = False) -> list[str]:
    """The checkpoint's tensors under a name: one, one a part, or blocks and scales."""
    if packed:
        return [theirs + "_blocks", theirs + "_scales"]
    return [theirs.format(i) for i in range(parts)] if "{}" in theirs else [theirs]


def _tensor(
    checkpoint: Checkpoint,
    arch: Architecture,
    config: ModelConfig,
    ours: str,
    theirs: str,
    expected: tuple[int, ...],
) -> CheckpointTensor:
    transform = transform_of(arch, split_name(ours)[1])
    _check_shape(checkpoint, theirs, transform.stored(config, expected))
    return CheckpointTensor(
        name=ours,
        shape=expected,
        checkpoint=checkpoint,
        source=theirs,
        config=config,
        transform=transform,
    )


def _experts(
    checkpoint: Checkpoint,
    arch: Architecture,
    config: ModelConfig,
    ours: str,
    theirs: list[str],
    expected: tuple[int, ...],
    last: LastExpert,
) -> FloatExperts | BlockExperts:
    transform = transform_of(arch, split_name(ours)[1])
    stored = transform.stored(config, expected)
    order = transform.row_order(config, expected[1])
    if len(theirs) == 1:
        _check_shape(checkpoint, theirs[0], stored)
        return FloatExperts(
            name=ours,
            shape=expected,
            checkpoint=checkpoint,
            source=theirs[0],
            order=order,
            last=last,
        )
    for name, shape in zip(theirs, packed_shapes(stored).values(), strict=True):
        _check_shape(checkpoint, name, shape)
        if (dtype := checkpoint.tensors[name].dtype) != "U8":
            raise UnsupportedError(f"{checkpoint.path}: tensor {name!r} is {dtype}, not bytes")
    return BlockExperts(
        name=ours,
        shape=expected,
        checkpoint=checkpoint,
        blocks=theirs[0],
        scales=theirs[1],
        order=order,
        last=last,
    )


def _check_shape(checkpoint: Checkpoint, name: str, expected: tuple[int, ...]) -> None:
    shape = tuple(checkpoint.tensors[name].shape)
    if shape != expected:
        raise CorruptFileError(
            f"{checkpoint.path}: tensor {name!r} has shape {shape}, expected {expected}"
        )


def _skipped(arch: Architecture, name: str) -> bool:
    return bool(arch.skipped) and name.startswith(arch.skipped)


def _listed(names: list[str] | set[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
