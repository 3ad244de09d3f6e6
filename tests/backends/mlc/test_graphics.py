"""The decoder for graphics processors computes what transformers does.

No graphics processor is here: its kernels are compiled without schedules, for this processor.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeinfer.backends.base import ModelFiles, Slice
from edgeinfer.backends.mlc import MlcBackend
from edgeinfer.backends.mlc.engine import MlcEngine
from edgeinfer.backends.mlc.packing import aligned
from edgeinfer.backends.mlc.parameters import Parameter, contents
from edgeinfer.backends.mlc.runtime import Library, without_torch
from edgeinfer.device.detect import detect
from edgeinfer.formats.mlc import folder as folders
from support import mlc_folder, tiny
from support.golden import golden
from support.plans import tiny_plan

pytestmark = [pytest.mark.peer, pytest.mark.slow]
MODELS = (
    "llama-gqa64-tied",
    "llama-mqa96-llama3",
    "mistral-gqa64-window",
    "qwen2-gqa64-tied",
    "qwen3-gqa128-tied",
    "gemma2-gqa64",
    "gemma3-gqa64",
    "phi3-gqa96-shortrope",
    "olmo2-mha64",
)


def engine(place: Path, model: tiny.Tiny, quant: str, kv_type: str) -> MlcEngine:
    """The decoder that devices get, compiled for this processor."""
    from edgeinfer_converters.mlc.convert import convert

    with without_torch():
        from edgeinfer.backends.mlc.compiler.devices import cpu_target
        from edgeinfer.backends.mlc.compiler.gpu import GpuKernels
        from edgeinfer.backends.mlc.compiler.isa import ISAS
        from edgeinfer.backends.mlc.compiler.model import built

    convert(tiny.write(model, place / "hf"), place / "out", quant=quant)
    folder = folders.read(place / "out")
    held = contents(folder)
    target = cpu_target(ISAS[next(isa for isa in detect().isas if isa in ISAS)])
    with target:
        kernels = GpuKernels(folder.config, kv_type, folder.quant)
        executable = built(folder, held, kernels, target, (), {})
    executable.export_library(str(place / "made.so"), cc="g++")
    library = Library(place / "made.so")
    context = min(folder.config.context, tiny.TOKENS)
    plan = tiny_plan("mlc", context=context, kv_type_k=kv_type, kv_type_v=kv_type)
    read = mlc_folder.read(place / "out")
    order = [held.parameters[name] for name in library.metadata["parameters"]]
    return MlcEngine(library, folder.config, [as_it_lies(read, p) for p in order], plan)


def as_it_lies(folder: mlc_folder.MlcFolder, parameter: Parameter) -> np.ndarray:
    """A parameter as the folder has it, its parts one below the other or side by side."""
    parts = [folder.arrays[name] for name in parameter.sources]
    side_by_side = (
        parameter.kind in ("codes", "scales")
        and mlc_folder.FORMATS[folder.config["quantization"]][3]
        and not parameter.name.startswith("token_embd")
    )
    whole = np.concatenate(parts, axis=1 if side_by_side else 0)
    if parameter.kind in ("vector", "bias"):
        whole = whole.astype(np.float32)
    found = aligned(whole.shape, whole.dtype.name)
    found[...] = whole
    return found


def logits(found: MlcEngine, model: tiny.Tiny) -> np.ndarray:
    """Of the prompt, read in pieces that fall into two pages."""
    number = found.open()
    tokens = model.tokens[: min(found.config.context, tiny.TOKENS)]
    pieces = [tokens[at : at + 7] for at in range(0, len(tokens), 7)]
    return np.concatenate([found.step([Slice(number, piece, len(piece))]) for piece in pieces])


@pytest.mark.parametrize("name", MODELS)
def test_it_gives_the_logits_of_transformers(name: str, tmp_path: Path) -> None:
    model = tiny.BY_NAME[name]
    found = logits(engine(tmp_path, model, "q0f32", "f32"), model)

    whole = golden(model)
    expected = replace(whole, logits=whole.logits[: len(found)])
    assert expected.distance(found) < 1e-4


@pytest.mark.parametrize("quant", ["q4f16_0", "q4f16_1", "q4f32_1", "q3f16_0", "q3f16_1"])
@pytest.mark.parametrize("name", ["llama-gqa64-tied", "olmo2-mha64"])
def test_codes_are_the_values_that_they_stand_for(name: str, quant: str, tmp_path: Path) -> None:
    model = tiny.BY_NAME[name]
    found = logits(engine(tmp_path, model, quant, "f32"), model)

    plain = mlc_folder.decoded(tmp_path / "out", tmp_path / "plain")
    files = ModelFiles(path=plain, format="mlc")
    expected = logits(MlcBackend().load(files, tiny_plan("mlc")), model)
    assert np.abs(found - expected).max() < 1e-4 * np.ptp(expected)
