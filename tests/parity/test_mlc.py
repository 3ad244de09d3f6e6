"""Exported tiny models give the logits that transformers gave, compiled by TVM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeinfer.arch import config_from_hf
from edgeinfer.backends.base import ModelFiles, Slice
from edgeinfer.backends.mlc import MlcBackend
from edgeinfer.formats.mlc import folder as folders
from edgeinfer.formats.mlc.families import FAMILIES
from support import tiny
from support.golden import Golden, golden
from support.plans import tiny_plan

pytestmark = pytest.mark.peer
PLAN = tiny_plan("mlc")
# What MLC LLM's format can express; the exporter refuses the other tiny models.
MODELS = [
    tiny.BY_NAME[name]
    for name in (
        "llama-gqa64-tied",
        "llama-mha128-untied",
        "llama-mqa96-llama3",
        "mistral-gqa128",
        "mistral-gqa64-window",
        "qwen2-gqa64-tied",
        "qwen3-gqa128-tied",
        "gemma2-gqa64",
        "gemma2-mqa128-scale",
        "gemma3-gqa64",
        "phi3-mha96",
        "phi3-gqa96-shortrope",
        "phi3-gqa64-window",
        "olmo2-mha64",
    )
]


def test_every_family_of_the_exporter_is_here() -> None:
    assert {name for model in MODELS for name in model.arch.hf_classes} >= FAMILIES.keys()


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_the_compiled_model_gives_the_logits_of_transformers(
    model: tiny.Tiny, checkpoint: Callable[[tiny.Tiny], Path], tmp_path: Path
) -> None:
    from edgeinfer_converters.mlc.convert import convert

    convert(checkpoint(model), tmp_path / "out", quant="q0f32")
    context = min(folders.read(tmp_path / "out").config.context, tiny.TOKENS)
    files = ModelFiles(path=tmp_path / "out", format="mlc")
    engine = MlcBackend().load(files, replace(PLAN, context=context))

    for size in (context, 7, 1):
        number = engine.open()
        rows = [
            engine.step([Slice(number, piece, len(piece))])
            for piece in (model.tokens[:context][at : at + size] for at in range(0, context, size))
        ]
        assert first(golden(model), context).distance(np.concatenate(rows)) < 1e-4
    engine.shutdown()


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_a_folder_tells_the_numbers_of_the_checkpoint(
    model: tiny.Tiny, checkpoint: Callable[[tiny.Tiny], Path], tmp_path: Path
) -> None:
    from edgeinfer_converters.mlc.convert import convert

    convert(checkpoint(model), tmp_path / "out", quant="q4f16_1")

    found = folders.read(tmp_path / "out").config
    expected = config_from_hf(model.config, context=found.context)
    # The format leaves out windows as long as the context, and lays rows of queries out its way.
    assert found == replace(
        expected,
        context=found.context,
        layer_window=found.layer_window,
        rope_style=found.rope_style,
        architecture=found.architecture,
    )
    assert found.context <= expected.context or model.arch.hf_classes == ("MistralForCausalLM",)


def first(whole: Golden, count: int) -> Golden:
    """What was recorded of the first tokens."""
    return replace(whole, tokens=whole.tokens[:count], logits=whole.logits[:count])
