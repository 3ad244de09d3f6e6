"""The models that engines are timed with: whole in the eyes of the format's own package."""

from __future__ import annotations

from dataclasses import replace

import gguf
import make_model
import numpy as np
import pytest

import edgeinfer
from edgeinfer import quant

SMALL = replace(
    make_model.SHAPES["qwen4b"],
    layers=2,
    width=256,
    ff_width=512,
    heads=4,
    kv_heads=2,
    head_dim=64,
    vocabulary=600,
    context=128,
)


@pytest.fixture(scope="module", params=["q4_0", "q6_k"])
def written(request, tmp_path_factory):
    """(quant type, path) of a model."""
    path = tmp_path_factory.mktemp("models") / "small.gguf"
    make_model.write(SMALL, quant.get(request.param), path)
    return request.param, path


def test_every_matrix_is_of_the_type_and_roughly_normal(written):
    name, path = written
    tensors = gguf.GGUFReader(path).tensors

    assert len(tensors) == 2 + 2 * 11
    for tensor in tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if values.ndim == 1:
            assert (values == 1).all()
        else:
            assert tensor.tensor_type.name.lower() == name
            assert values.std() == pytest.approx(make_model.DEVIATION, rel=0.05)
            assert abs(values.mean()) < 0.001
            assert len(np.unique(values, axis=0)) == len(values)  # no row is there twice


def test_it_loads_and_its_logits_are_tame(written):
    _, path = written
    with edgeinfer.load(path, threads=1) as model:
        tokens = model.tokenizer.encode("any text at all")
        logits = model.logits(tokens)

    assert len(tokens) > 1
    assert logits.shape == (len(tokens), 600)
    assert 0.05 < logits.std() < 2


def test_the_shapes_are_those_of_the_models_they_are_named_after():
    counts = {
        name: sum(int(np.prod(shape)) for shape in make_model.SHAPES[name].tensors().values())
        for name in ("llama1b", "qwen4b")
    }

    # As their makers publish them: 1.24 B and 4.02 B parameters.
    assert counts == {"llama1b": 1_235_814_400, "qwen4b": 4_022_468_096}


def test_experts_may_be_of_a_type_of_their_own(tmp_path):
    shape = replace(make_model.SHAPES["gptoss20b4"], layers=2, width=128, ff_width=64, heads=4)
    shape = replace(shape, kv_heads=2, vocabulary=600, experts=6, experts_used=2, context=128)
    path = tmp_path / "small.gguf"
    make_model.write(shape, quant.get("q8_0"), path)

    kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(path).tensors if len(t.shape) > 2}
    assert len(kinds) == 2 * 3 and set(kinds.values()) == {"MXFP4"}
    with edgeinfer.load(path, threads=1) as model:
        logits = model.logits(model.tokenizer.encode("any text at all"))
    assert 0.05 < logits.std() < 2
