"""The planner's sums beside the engine's own, byte for byte."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum

import numpy as np
import pytest

from edgeinfer import quant
from edgeinfer.arch import config_from_gguf, config_from_hf, engine_tensors, gguf_architecture
from edgeinfer.arch.tensors import checkpoint_names, file_shape
from edgeinfer.planner import costs
from support.tiny import MODELS


@dataclass(frozen=True)
class Tensor:
    type: str
    shape: tuple[int, ...]


def plain(config):
    """The config as the numbers and names that the extension reads."""
    fields = {
        name: value.value if isinstance(value, Enum) else value
        for name, value in asdict(config).items()
    }
    fields["rope_tables"] = [
        (np.array(table.inverse_frequencies, np.float32), table.magnitude)
        for table in config.rope_tables
    ]
    fields["layer_mixer"] = [mixer.value for mixer in config.layer_mixer]
    return fields


def engine_says(arch, config, tensors, *, context=100, batch=64, kv_types=("f16", "f16")):
    """What the extension computes from the same shapes."""
    from edgeinfer import _native

    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    sources = []
    for part in engine_tensors(arch, config, shapes):
        source = tensors[part.source]
        vector = len(source.shape) == 1
        rows, cols = (1, part.row_count) if vector else (part.row_count, source.shape[-1])
        sources.append((part.name, "", source.type, 0, rows, cols))
    return _native.engine_memory(
        plain(config),
        sources,
        context=context,
        threads=2,
        batch=batch,
        kv_type_k=kv_types[0],
        kv_type_v=kv_types[1],
    )


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", quant.all_types(), ids=str)
def test_weights_of_every_quant_type(header, kind, tied):
    model = header(kind=kind.name, embedding=kind.name, tied=tied, vocab=1003)
    config, arch = config_from_gguf(model), gguf_architecture(model.metadata)

    ours = costs.weights_bytes(arch, config, model.tensors)

    assert ours == engine_says(arch, config, model.tensors)["weights"]


@pytest.mark.parametrize("tiny", MODELS, ids=str)
def test_everything_of_every_family(tiny):
    arch, config = tiny.arch, config_from_hf(tiny.config)
    tensors = {}
    for name in checkpoint_names(arch, config, tiny.config):
        shape = file_shape(arch, config, name)
        tensors[name] = Tensor("f32" if len(shape) == 1 else "f16", shape)

    theirs = engine_says(arch, config, tensors, context=77, batch=40)

    assert costs.weights_bytes(arch, config, tensors) == theirs["weights"]
    assert costs.kv_bytes(config, 77, "f16", "f16") == theirs["kv"]
    assert costs.scratch_bytes(config, 40) == theirs["scratch"]


@pytest.mark.parametrize("kv_types", [("f16", "f16"), ("f32", "q8_0"), ("q4_0", "bf16")])
@pytest.mark.parametrize("context", [1, 16, 17, 4096])
@pytest.mark.parametrize("batch", [1, 63, 64, 65, 512])
def test_cache_and_scratch(header, kv_types, context, batch):
    model = header(heads=9, kv_heads=3, head_dim=64, width=256)
    config, arch = config_from_gguf(model), gguf_architecture(model.metadata)

    theirs = engine_says(
        arch, config, model.tensors, context=context, batch=batch, kv_types=kv_types
    )

    assert costs.kv_bytes(config, context, *kv_types) == theirs["kv"]
    assert costs.scratch_bytes(config, batch) == theirs["scratch"]
