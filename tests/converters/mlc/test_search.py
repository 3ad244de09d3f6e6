"""Searching: a smaller error in the same format; Q4_0 keeps its values both ways."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from edgeinfer.formats.mlc.quants import QUANTS
from edgeinfer_converters.mlc.packing import encode_as_mlc
from edgeinfer_converters.mlc.search import encode_searched, from_q4_0, to_q4_0
from support import mlc_folder

rng = np.random.default_rng(3)
SHAPE = (96, 1280)
DRAWN = {
    "normal": rng.standard_normal(SHAPE),
    "laplace": rng.laplace(size=SHAPE),
    "student": rng.standard_t(5, SHAPE),
}
LEAST_GAIN = 0.25


def squared_error(weights: np.ndarray, words: np.ndarray, scales: np.ndarray, name: str) -> float:
    stored = mlc_folder.ROUND[mlc_folder.FORMATS[name][2]](scales)
    values = mlc_folder.values_of(words, stored, name, weights.shape[1])
    return float(((values - weights).astype(np.float64) ** 2).sum())


@pytest.mark.parametrize("drawn", DRAWN)
@pytest.mark.parametrize("name", mlc_folder.FORMATS)
def test_the_squared_error_is_at_least_a_quarter_lower(name: str, drawn: str) -> None:
    weights = (DRAWN[drawn] * 0.02).astype(np.float32)
    quant = QUANTS[name]

    theirs = squared_error(weights, *encode_as_mlc(weights, quant), name)
    ours = squared_error(weights, *encode_searched(weights, quant, threads=2), name)

    assert ours < (1 - LEAST_GAIN) * theirs


@pytest.mark.parametrize("name", mlc_folder.FORMATS)
def test_searched_scales_are_already_rounded(name: str) -> None:
    """Codes fit the scale that a runtime loads; float32 scales are stored in 16 bits."""
    weights = DRAWN["normal"].astype(np.float32)
    dtype = mlc_folder.FORMATS[name][2]

    _, scales = encode_searched(weights, QUANTS[name], threads=1)

    rounding = mlc_folder.ROUND["bfloat16" if dtype == "float32" else dtype]
    np.testing.assert_array_equal(scales, rounding(scales))


@pytest.mark.parametrize("name", mlc_folder.FORMATS)
@pytest.mark.parametrize("columns", [32, 100, 1])
def test_zeros_and_rows_that_end_within_a_group(name: str, columns: int) -> None:
    weights = np.zeros((3, columns), np.float32)
    weights[1] = 0.5

    words, scales = encode_searched(weights, QUANTS[name], threads=1)

    values = mlc_folder.values_of(words, scales, name, columns)
    np.testing.assert_allclose(values, weights, rtol=2e-3)


@pytest.fixture
def blocks() -> np.ndarray:
    """Rows of Q4_0 by the gguf package, and every code with scales of both signs."""
    drawn = gguf.quantize(DRAWN["normal"].astype(np.float32), gguf.GGMLQuantizationType.Q4_0)
    odd = np.empty((2, SHAPE[1] // 32, 18), np.uint8)
    odd[:, :, :2] = np.array([[1.5], [-0.25]], "<f2").view(np.uint8)[:, None]
    odd[:, :, 2:] = np.arange(16) * 17
    return np.concatenate([drawn, odd.reshape(2, -1)])


@pytest.mark.parametrize("name", ["q4f16_1", "q4f32_1"])
def test_q4_0_keeps_its_values(name: str, blocks: np.ndarray) -> None:
    words, scales = from_q4_0(blocks, QUANTS[name])

    expected = gguf.dequantize(blocks, gguf.GGMLQuantizationType.Q4_0)
    np.testing.assert_array_equal(mlc_folder.values_of(words, scales, name, SHAPE[1]), expected)


def test_q4_0_to_mlc_and_back_are_the_same_bytes(blocks: np.ndarray) -> None:
    quant = QUANTS["q4f16_1"]

    np.testing.assert_array_equal(to_q4_0(*from_q4_0(blocks, quant), quant), blocks)


def test_what_mlc_wrote_becomes_q4_0_of_the_same_values() -> None:
    weights = (DRAWN["laplace"] * 0.02).astype(np.float32)
    words, scales = encode_as_mlc(weights, QUANTS["q4f16_1"])

    blocks = to_q4_0(words, scales, QUANTS["q4f16_1"])

    np.testing.assert_array_equal(
        gguf.dequantize(blocks, gguf.GGMLQuantizationType.Q4_0),
        mlc_folder.values_of(words, scales, "q4f16_1", SHAPE[1]),
    )
