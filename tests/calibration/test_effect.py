"""Divergence of changed weights, beside the definition in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeinfer.calibration.effect import Effect, divergences
from edgeinfer.calibration.opened import open_model
from edgeinfer.calibration.weights import put, restore, values
from edgeinfer.evaluation.chunks import chunked
from edgeinfer_converters.gguf import convert
from support import tiny

CHUNKS = chunked(np.random.default_rng(0).integers(5, 60, 64), context=32)


def by_definition(then: np.ndarray, now: np.ndarray) -> np.ndarray:
    def log_softmax(z: np.ndarray) -> np.ndarray:
        z = z.astype(np.longdouble)
        z -= z.max(axis=1, keepdims=True)
        return z - np.log(np.exp(z).sum(axis=1, keepdims=True))

    p, q = log_softmax(then), log_softmax(now)
    return (np.exp(p) * (p - q)).sum(axis=1).astype(np.float64)


@pytest.mark.parametrize("size", [3.0, 0.3, 0.01, 0.001])
def test_divergence_is_as_defined_also_when_tiny(size: float) -> None:
    rng = np.random.default_rng(5)
    then = rng.normal(0, 4, (20, 5000)).astype(np.float32)
    now = (then + rng.normal(0.5, size, then.shape)).astype(np.float32)  # and a shift of all

    np.testing.assert_allclose(divergences(then, now), by_definition(then, now), rtol=0.02)


def test_no_change_is_no_divergence() -> None:
    logits = np.random.default_rng(1).normal(0, 4, (3, 100)).astype(np.float32)

    assert divergences(logits, logits).tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", ["llama-gqa64-tied", "phi3-gqa96-shortrope", "mixtral-gqa64"])
def test_every_matrix_can_be_changed_and_put_back(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    convert(tiny.write(tiny.BY_NAME[name], tmp_path / name), path, quant="f16")

    with open_model(path, context=32, threads=1) as opened:
        effect = Effect(opened, CHUNKS)
        for matrix in opened.matrices:
            if matrix.name.endswith("gate_inp.weight"):
                continue
            put(opened, matrix, values(opened, matrix) * np.float32(0.9))
            changed = effect.divergence()
            restore(opened, matrix)

            assert changed > 1e-9, matrix.name
            assert effect.divergence() == 0, matrix.name
