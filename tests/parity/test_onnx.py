"""Exported tiny models give the logits that transformers gave, in plain onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support import tiny
from support.golden import golden
from support.onnx_graph import Run

pytestmark = pytest.mark.peer
DENSE = [model for model in tiny.MODELS if not model.has_experts]


@pytest.mark.parametrize("model", DENSE, ids=str)
def test_the_exported_graph_gives_the_logits_of_transformers(
    model: tiny.Tiny, checkpoint: Callable[[tiny.Tiny], Path], tmp_path: Path
) -> None:
    from edgeinfer_converters.onnx.convert import convert

    convert(checkpoint(model), tmp_path / "out", quant="f32", context=tiny.CONTEXT)
    run, wanted = Run(tmp_path / "out"), golden(model)

    for step in (None, 7, 1):
        assert wanted.distance(run.logits(model.tokens, step)) < 1e-4


@pytest.mark.parametrize(("quant", "most"), [("f16", 0.01), ("int8", 0.15)])
def test_smaller_graphs_are_near(
    quant: str, most: float, checkpoint: Callable[[tiny.Tiny], Path], tmp_path: Path
) -> None:
    from edgeinfer_converters.onnx.convert import convert

    model = tiny.BY_NAME["gemma2-gqa64"]
    convert(checkpoint(model), tmp_path / "out", quant=quant)

    assert golden(model).distance(Run(tmp_path / "out").logits(model.tokens)) < most
