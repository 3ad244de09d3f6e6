"""Forms of matrices for ONNX Runtime: which values they hold, and how they lie in bytes."""

from __future__ import annotations

import numpy as np
import pytest

from edgeinfer.errors import UsageError
from edgeinfer.quant import decode, encode, get
from edgeinfer_converters.onnx import forms
from edgeinfer_converters.onnx.forms import EXACT, RECIPES, Form, encoded, packed


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
    form, take_apart = EXACT[name]
    stored = encode(get(name), random(5, 512))

    codes, scales = take_apart(stored)

    assert codes.dtype == np.uint8 and scales.dtype == np.float32
    np.testing.assert_array_equal(values_of(codes, scales, form), decode(get(name), stored, 512))


@pytest.mark.parametrize(("bits", "worst"), [(8, 0.006), (4, 0.11), (2, 0.45)])
def test_what_is_encoded_anew_is_near(bits, worst):
    values = random(8, 256)

    codes, scales = encoded(Given(values), Form(bits), 0, 8, threads=1)

    assert codes.max() < 2**bits
    error = values_of(codes, scales, Form(bits)) - values
    assert np.sqrt(np.mean(error**2)) < worst


def test_two_bits_hold_their_own_levels_exactly():
    rng = np.random.Generator(np.random.PCG64(1))
    levels = rng.integers(-2, 2, (4, 64)).astype(np.float32)
    levels[:, ::32] = -2  # every block reaches its outer level
    values = levels * np.array([[0.5], [-0.25], [2.0], [0.0]], np.float32)

    codes, scales = encoded(Given(values), Form(2), 0, 4, threads=1)

    np.testing.assert_array_equal(values_of(codes, scales, Form(2)), values)


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
