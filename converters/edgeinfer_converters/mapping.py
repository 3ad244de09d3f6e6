"""Which tensor of a checkpoint becomes which of a GGUF: all used, none missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeinfer.arch import Architecture, ModelConfig
from edgeinfer.arch.spec import MODEL_TENSORS
from edgeinfer.arch.tensors import checkpoint_names, file_shape, split_name, usual_name
from edgeinfer.arch.transforms import transform_of
from edgeinfer.errors import CorruptFileError, UnsupportedError
from edgeinfer.formats.safetensors import Checkpoint
from edgeinfer_converters.tensors import CheckpointTensor, StackedTensor, Tensor

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
    names = checkpoint_names(arch, config, settings)
    wanted = [name for theirs in names.values() for name in _each(theirs, config)]
    missing = [theirs for theirs in wanted if theirs not in spelled]
    if missing:
        raise CorruptFileError(f"{checkpoint.path}: missing tensors: {_listed(missing)}")
    unknown = spelled.keys() - set(wanted)
    if config.tied_output:
        unknown -= {MODEL_TENSORS["output.weight"]}  # a copy of the embeddings
    buffers = (*_BUFFERS, *arch.buffers)
    unknown = {name for name in unknown if not name.endswith(buffers) and not _skipped(arch, name)}
    if unknown:
        raise UnsupportedError(
            f"{checkpoint.path}: tensors that {arch.name} does not have: {_listed(unknown)}"
        )
    tensors: list[Tensor] = []
    for ours, theirs in names.items():
        expected = file_shape(arch, config, split_name(ours)[1])
        stored = [spelled[name] for name in _each(theirs, config)]
        if "{}" in theirs:
            parts = [_tensor(checkpoint, arch, config, ours, s, expected[1:]) for s in stored]
            tensors.append(StackedTensor(name=ours, parts=parts))
        else:
            tensors.append(_tensor(checkpoint, arch, config, ours, stored[0], expected))
    return tensors


def _each(theirs: str, config: ModelConfig) -> list[str]:
    """The checkpoint's tensors under a name: one, or one an expert."""
    return [theirs.format(i) for i in range(config.experts)] if "{}" in theirs else [theirs]


def _tensor(
    checkpoint: Checkpoint,
    arch: Architecture,
    config: ModelConfig,
    ours: str,
    theirs: str,
    expected: tuple[int, ...],
) -> CheckpointTensor:
    kind = split_name(ours)[1]
    transform = transform_of(arch, kind)
    shape, stored = tuple(checkpoint.tensors[theirs].shape), transform.stored(config, expected)
    if shape != stored:
        raise CorruptFileError(
            f"{checkpoint.path}: tensor {theirs!r} has shape {shape}, expected {stored}"
        )
    return CheckpointTensor(
        name=ours,
        shape=expected,
        checkpoint=checkpoint,
        source=theirs,
        config=config,
        transform=transform,
    )


def _skipped(arch: Architecture, name: str) -> bool:
    return bool(arch.skipped) and name.startswith(arch.skipped)


def _listed(names: list[str] | set[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
