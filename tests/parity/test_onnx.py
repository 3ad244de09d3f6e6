"""Exported tiny models give the logits that transformers gave, in plain onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeinfer.backends.base import ModelFiles, Slice
from edgeinfer.backends.onnx import OnnxBackend
from support import tiny
from support.golden import golden
from support.onnx_graph import Run
from support.plans import tiny_plan

pytestmark = pytest.mark.peer
PLAN = tiny_plan("onnx")
DENSE = [
    model
    for model in tiny.MODELS
    if not (
        model.has_experts or model.arch.recurrent or model.arch.name in ("gemma3n", "gemma4")
    )  # refused
]


@pytest.mark.parametrize("model", DENSE, ids=str)
def test_the_exported_graph_gives_the_logits_of_transformers(
    model: tiny.Tiny, checkpoint: Callable[[tiny.Tiny], Path], tmp_path: Path
) -> None:
    from edgeinfer_converters.onnx.convert import convert

    convert(checkpoint(model), tmp_path / "out", quant="f32", context=tiny.CONTEXT)
    run, wanted = Run(tmp_path / "out"), golden(model)

    for step in (None, 7, 1):
        assert wanted.distance(run.logits(model.tokens, step)) < 1e-4

    # The same through the backend, which appends in place and cuts what is long.
    engine = OnnxBackend().load(ModelFiles(path=tmp_path / "out", format="onnx"), PLAN)
    for size in (tiny.TOKENS, 7, 1):
        number = engine.open()
        rows = [
            engine.step([Slice(number, piece, len(piece))])
            for piece in (model.tokens[at : at + size] for at in range(0, tiny.TOKENS, size))
        ]
        assert wanted.distance(np.concatenate(rows)) < 1e-4


# With blocks that have scales of their own, 8 bits are off by a third of this, 4 bits by thrice.
EIGHT_BITS = {
    "gpt2-mha64": 0.02,
    "gemma2-gqa64": 0.06,
    "phi3-gqa96-shortrope": 0.16,
    "qwen2-gqa64-tied": 0.035,
}


@pytest.mark.parametrize("cache", ["f16", "int8"])
@pytest.mark.parametrize("name", EIGHT_BITS)
def test_smaller_caches_are_near(
    name: str, cache: str, checkpoint: Callable[[tiny.Tiny], Path], tmp_path: Path
) -> None:
    """Windows, caps, rotations of either kind, and as many steps as there are tokens."""
    from edgeinfer_converters.onnx.convert import convert

    model = tiny.BY_NAME[name]
    convert(checkpoint(model), tmp_path / "out", quant="f32", context=tiny.CONTEXT, cache=cache)
    plan = replace(PLAN, kv_type_k=cache, kv_type_v=cache)
    engine = OnnxBackend().load(ModelFiles(path=tmp_path / "out", format="onnx"), plan)

    for size in (tiny.TOKENS, 7, 1):
        number = engine.open()
        rows = [
            engine.step([Slice(number, piece, len(piece))])
            for piece in (model.tokens[at : at + size] for at in range(0, tiny.TOKENS, size))
        ]
        most = 0.003 if cache == "f16" else EIGHT_BITS[name]
        assert 1e-5 < golden(model).distance(np.concatenate(rows)) < most


@pytest.mark.parametrize(("quant", "most"), [("f16", 0.01), ("int8", 0.15)])
def test_smaller_graphs_are_near(
    quant: str, most: float, checkpoint: Callable[[tiny.Tiny], Path], tmp_path: Path
) -> None:
    from edgeinfer_converters.onnx.convert import convert

    model = tiny.BY_NAME["gemma2-gqa64"]
    convert(checkpoint(model), tmp_path / "out", quant=quant)

    assert golden(model).distance(Run(tmp_path / "out").logits(model.tokens)) < most
