"""The output error of a rounded matrix, on inputs that a model saw."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeinfer import quant
from edgeinfer.calibration.errors import output_errors, sample_inputs
from edgeinfer.calibration.inputs import MatrixSource
from edgeinfer.calibration.opened import open_model
from edgeinfer.evaluation.chunks import chunked
from edgeinfer_converters.gguf import convert
from support import tiny

MATRIX = MatrixSource(name="w", shape=(64, 256), experts=1, field="qkv", layer=0, parts=())
TYPES = [quant.get(name) for name in ("q2_k", "q4_k", "q8_0")]


def test_errors_are_those_of_the_products() -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(64, 256)).astype(np.float32)
    inputs = (rng.normal(size=(30, 256)) * rng.lognormal(0, 2, 256)).astype(np.float32)
    importance = np.square(inputs).mean(axis=0)

    found = output_errors(MATRIX, weights, TYPES, inputs, importance[None])

    for type_ in TYPES:
        stored = quant.encode(type_, weights, importance=importance)
        error = (weights - quant.decode(type_, stored, 256)).astype(np.float64) @ inputs.T
        expected = np.square(error).sum() / np.square(weights.astype(np.float64) @ inputs.T).sum()
        np.testing.assert_allclose(found[type_.name], expected, rtol=1e-4)
    assert found["q2_k"] > found["q4_k"] > found["q8_0"] > 0


def test_the_rows_of_experts_are_rounded_with_their_own_importance() -> None:
    rng = np.random.default_rng(0)
    matrix = replace(MATRIX, shape=(512, 256), experts=4)
    weights = rng.normal(size=(512, 256)).astype(np.float32)
    importance = rng.lognormal(0, 2, (4, 256)).astype(np.float32)
    type_ = TYPES[0]

    found = output_errors(matrix, weights, [type_], None, importance)

    stored = [
        quant.encode(type_, weights[128 * e :][:128], importance=importance[e]) for e in range(4)
    ]
    error = weights - quant.decode(type_, np.concatenate(stored), 256)
    np.testing.assert_allclose(found["q2_k"], np.square(error).sum() / np.square(weights).sum())


def test_an_embedding_that_is_looked_up_counts_its_weights() -> None:
    weights = np.random.default_rng(0).normal(size=(64, 256)).astype(np.float32)

    found = output_errors(MATRIX, weights, TYPES[:1], None, None)

    error = weights - quant.decode(TYPES[0], quant.encode(TYPES[0], weights), 256)
    np.testing.assert_allclose(found["q2_k"], np.square(error).sum() / np.square(weights).sum())


def test_inputs_are_sampled_from_all_chunks(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    convert(tiny.write(tiny.BY_NAME["llama-gqa64-tied"], tmp_path / "m"), path, quant="f16")
    chunks = chunked(np.random.default_rng(0).integers(5, 60, 96), context=32)

    with open_model(path, context=32, threads=1) as opened:
        all_inputs = sample_inputs(opened, chunks, tokens=96)
        some = sample_inputs(opened, chunks, tokens=10)
        width, layers = opened.engine.config.width, opened.engine.config.layers

    assert set(some) == {(f, i) for f in ("qkv", "o", "ffn", "down") for i in range(layers)} | {
        ("output", -1)
    }
    assert all_inputs["qkv", 0].shape == (96, width)
    assert some["qkv", 0].shape == (10, width)
    for row in some["output", -1]:
        assert (all_inputs["output", -1] == row).all(axis=1).any()
