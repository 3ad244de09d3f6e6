"""Forms of matrices for ONNX Runtime: which values they hold, and how they lie in bytes."""

from __future__ import annotations

import numpy as np
import pytest

from edgeinfer.errors import UsageError
from edgeinfer.quant import decode, encode, get
from edgeinfer_converters.onnx import forms
from edgeinfer_converters.onnx.forms import (
    EXACT,
    NEAR,
    RECIPES,
    Form,
    encoded,
    offset_codes,
    packed,
)
from edgeinfer_converters.onnx.gguf_blocks import EXACT_BLOCKS, OFFSET_BLOCKS


def random(rows: int, columns: int) -> np.ndarray:
    rng = np.random.Generator(np.random.PCG64(7))
    return rng.standard_normal((rows, columns), dtype=np.float32)


class Given:
    """A tensor of a checkpoint."""

    name = "given"
    stored_type = None

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape = values, values.shape

    def read(self, first: int, last: int) -> np.ndarray:
        return self.values[first:last]


def values_of(codes: np.ndarray, scales: np.ndarray, form: Form) -> np.ndarray:
    """What ONNX Runtime reads."""
    levels = codes.astype(np.float32) - 2 ** (form.bits - 1)
    return levels * np.repeat(scales, form.block, axis=1)


@pytest.mark.parametrize("name", EXACT)
def test_a_type_with_a_form_of_its_own_keeps_its_values(name):
    stored = encode(get(name), random(5, 512))

    codes, scales = EXACT_BLOCKS[name](stored)

    assert codes.dtype == np.uint8 and scales.dtype == np.float32
    got = values_of(codes, scales, EXACT[name])
    np.testing.assert_array_equal(got, decode(get(name), stored, 512))


@pytest.mark.parametrize("name", NEAR)
def test_a_type_with_offsets_keeps_its_codes_and_scales_and_nearly_its_offsets(name):
    stored, form = encode(get(name), random(5, 768)), NEAR[name]

    codes, scales, offsets = OFFSET_BLOCKS[name](stored)

    wanted = decode(get(name), stored, 768)
    got = values_of(codes, scales, form) + np.repeat(offsets, form.block, axis=1)
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    # 24 blocks a row: their offsets are filled up to one block of 32 themselves.
    rounded = values_of(*offset_codes(offsets), Form(8))
    assert rounded.shape == (5, 32) and not rounded[:, 24:].any()
    assert np.abs(rounded[:, :24] - offsets).max() < 0.02 * scales.max()


@pytest.mark.parametrize(("bits", "worst"), [(8, 0.006), (4, 0.11), (2, 0.45)])
def test_what_is_encoded_anew_is_near(bits, worst):
    values = random(8, 256)

    found = encoded(Given(values), Form(bits), 0, 8, threads=1)

    assert found.codes.max() < 2**bits
    error = values_of(found.codes, found.scales, Form(bits)) - values
    assert np.sqrt(np.mean(error**2)) < worst


def test_two_bits_hold_their_own_levels_exactly():
    rng = np.random.Generator(np.random.PCG64(1))
    levels = rng.integers(-2, 2, (4, 64)).astype(np.float32)
    levels[:, ::32] = -2  # every block reaches its outer level
    values = levels * np.array([[0.5], [-0.25], [2.0], [0.0]], np.float32)

    found = encoded(Given(values), Form(2), 0, 4, threads=1)

    np.testing.assert_array_equal(values_of(found.codes, found.scales, Form(2)), values)


def test_blocks_of_two_bits_keep_most_of_their_length(monkeypatch):
    values = random(64, 256)

    def kept() -> tuple[float, float]:
        """The length along the values, and the error, as parts of the values' own."""
        found = encoded(Given(values), Form(2), 0, 64, threads=1)
        near, energy = values_of(found.codes, found.scales, Form(2)), (values**2).sum()
        return float((near * values).sum() / energy), float(((near - values) ** 2).sum() / energy)

    length, error = kept()
    monkeypatch.setattr(forms, "_GIVEN_BACK", 0)
    least_length, least_error = kept()

    assert 1 - length < 0.4 * (1 - least_length)
    assert error < 1.1 * least_error


@pytest.mark.parametrize("bits", [2, 4])
def test_important_columns_are_nearer(bits):
    values, importance = random(64, 256), np.ones(256, np.float32)
    importance[::4] = 25

    def error(weights: np.ndarray | None) -> float:
        found = encoded(Given(values), Form(bits), 0, 64, threads=1, importance=weights)
        off = values_of(found.codes, found.scales, Form(bits)) - values
        return float((importance * off**2).sum())

    assert error(importance) < 0.9 * error(None)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_first_code_is_the_lowest(bits):
    codes = random(3, 64).view(np.uint8)[:, :64] & (2**bits - 1)

    octets = packed(codes, bits)

    count = 8 // bits
    apart = [octets >> (bits * i) & (2**bits - 1) for i in range(count)]
    np.testing.assert_array_equal(np.stack(apart, axis=-1).reshape(3, 64), codes)


def test_an_unknown_recipe_is_refused():
    with pytest.raises(UsageError, match="q4_k_m"):
        forms.get_recipe("q4_k_m")
    assert set(RECIPES) == {"f32", "f16", "int8", "int4", "int2"}
