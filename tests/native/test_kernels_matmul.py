"""Matrix products of every instruction set and quant type against float64 NumPy."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeinfer import _native, quant
from support.random_blocks import random_blocks

Array = NDArray[np.float64]
ISAS = _native.isas()
TYPES = [quant_type.name for quant_type in quant.all_types()]
QUANTISED = [quant_type.name for quant_type in quant.all_types() if not quant_type.is_float]

every_isa = pytest.mark.parametrize("isa", ISAS)
every_type = pytest.mark.parametrize("name", TYPES)


@cache
def weights(name: str, rows: int, cols: int, seed: int = 0) -> tuple[NDArray[np.uint8], Array]:
    """Random GGUF data of a type and its values."""
    if name in QUANTISED:
        data = random_blocks(quant.get(name), rows, cols, seed)
    else:
        x = np.random.default_rng(seed).normal(size=(rows, cols)).astype(np.float32)
        data = _native.encode(name, x)
    return data, _native.decode(name, data, rows, cols).astype(np.float64)


def tokens_of(count: int, cols: int, seed: int = 1) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, cols)) * rng.uniform(0.01, 10, (count, 1))).astype(np.float32)


def quantised(isa: str, x: NDArray[np.float32]) -> Array:
    """The activations as the integer kernels see them."""
    q, scale, _, _ = _native.quantize(isa, x)
    return q.astype(np.float64) * np.repeat(scale.astype(np.float64), 16, axis=1)


def seen_by(isa: str, name: str, x: NDArray[np.float32]) -> Array:
    return quantised(isa, x) if name in QUANTISED else x.astype(np.float64)


def assert_product(y: NDArray[np.float32], w: Array, a: Array, tolerance: float = 1e-6) -> None:
    """|y - w a| <= tolerance * sum |w||a|, for all rows and tokens."""
    assert y.dtype == np.float32
    bound = np.abs(a) @ np.abs(w).T
    worst = np.max(np.abs(y - a @ w.T) / np.maximum(bound, 1e-30))
    assert worst <= tolerance


@every_isa
@every_type
def test_any_number_of_tokens(isa: str, name: str) -> None:
    data, w = weights(name, 33, 256)
    for tokens in [*range(1, 18), 64, 127, 257]:
        x = tokens_of(tokens, 256)

        y = _native.matmul(isa, name, data, 33, 256, x)

        assert_product(y, w, seen_by(isa, name, x))


@every_isa
@every_type
@pytest.mark.parametrize("cols", [32, 64, 288, 512, 2048])
@pytest.mark.parametrize("rows", [1, 15, 16, 17, 100])
def test_any_shape(isa: str, name: str, rows: int, cols: int) -> None:
    if cols % quant.get(name).block:
        cols = 256 * (1 + cols // 256)  # the nearest shape the type has
    data, w = weights(name, rows, cols)
    for tokens in (1, 3, 9):
        x = tokens_of(tokens, cols)

        y = _native.matmul(isa, name, data, rows, cols, x)

        assert_product(y, w, seen_by(isa, name, x))


@every_isa
@pytest.mark.parametrize("name", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("cols", [1, 2, 7, 31])
def test_float_weights_of_any_width(isa: str, name: str, cols: int) -> None:
    data, w = weights(name, 19, cols)
    x = tokens_of(5, cols)

    assert_product(_native.matmul(isa, name, data, 19, cols, x), w, x.astype(np.float64))


@every_isa
@pytest.mark.parametrize("name", QUANTISED)
def test_int8_activations_cost_little(isa: str, name: str) -> None:
    data, w = weights(name, 64, 1024)
    x = tokens_of(4, 1024)

    y = _native.matmul(isa, name, data, 64, 1024, x)

    truth = x.astype(np.float64) @ w.T
    assert np.linalg.norm(y - truth) / np.linalg.norm(truth) < 7e-3


@every_isa
@every_type
def test_threads_do_not_change_a_bit(isa: str, name: str) -> None:
    data, _ = weights(name, 100, 256)
    for tokens in (1, 2, 40):
        x = tokens_of(tokens, 256)
        alone = _native.matmul(isa, name, data, 100, 256, x, threads=1)

        for threads in (2, 3, 4):
            shared = _native.matmul(isa, name, data, 100, 256, x, threads=threads)
            np.testing.assert_array_equal(shared, alone)


@every_isa
@every_type
def test_a_token_does_not_depend_on_its_company(isa: str, name: str) -> None:
    data, _ = weights(name, 48, 512)
    x = tokens_of(131, 512)
    batch = _native.matmul(isa, name, data, 48, 512, x)

    for first, last in [(0, 1), (1, 3), (3, 6), (6, 10), (10, 15), (15, 131)]:
        alone = _native.matmul(isa, name, data, 48, 512, x[first:last].copy())
        np.testing.assert_array_equal(alone, batch[first:last])


def fill_codes(name: str, rows: int, cols: int, byte: int) -> tuple[NDArray[np.uint8], Array]:
    """Random weights with the bytes that hold only codes replaced by `byte`."""
    data, _ = weights(name, rows, cols)
    blocks = data.reshape(-1, quant.get(name).block_bytes).copy()
    blocks[:, CODE_BYTES[name]] = byte
    data = blocks.reshape(data.shape)
    return data, _native.decode(name, data, rows, cols).astype(np.float64)


# Where the codes of a GGUF block lie (ggml-common.h), with the integer scales of some i-quants
# among them; the test would not know otherwise.
CODE_BYTES = {
    "q4_0": slice(2, 18),
    "q4_1": slice(4, 20),
    "q5_0": slice(2, 22),
    "q5_1": slice(4, 24),
    "q8_0": slice(2, 34),
    "q2_k": slice(16, 80),
    "q3_k": slice(0, 96),
    "q4_k": slice(16, 144),
    "q5_k": slice(16, 176),
    "q6_k": slice(0, 192),
    "iq4_nl": slice(2, 18),
    "iq4_xs": slice(8, 136),
    "mxfp4": slice(1, 17),
    "iq3_s": slice(2, 110),
    "iq3_xxs": slice(2, 98),
    "iq2_s": slice(2, 82),
    "iq2_xs": slice(2, 74),
    "iq2_xxs": slice(2, 66),
    "iq1_s": slice(2, 50),
    "iq1_m": slice(0, 48),
    "tq2_0": slice(0, 64),
    "tq1_0": slice(0, 52),
}


@every_isa
@pytest.mark.parametrize("name", QUANTISED)
@pytest.mark.parametrize("byte", [0x00, 0x7F, 0x80, 0xFF, 0x0F, 0xF0])
def test_extreme_codes_do_not_overflow(isa: str, name: str, byte: int) -> None:
    data, w = fill_codes(name, 16, 512, byte)
    x = np.ones((6, 512), dtype=np.float32)  # q is 127 or -127 everywhere
    x[1] *= -1
    x[2, ::2] *= -1
    x[3] *= np.float32(1e-20)
    x[4] *= np.float32(1e20)
    x[5] = 0

    for tokens in (x, x[:1].copy(), x[1:2].copy()):
        y = _native.matmul(isa, name, data, 16, 512, tokens)
        assert_product(y, w, quantised(isa, tokens))


@every_isa
@pytest.mark.parametrize("name", QUANTISED)
def test_integer_sums_are_exact(isa: str, name: str) -> None:
    """With one value among zeros the product is one rounding away from the weight itself."""
    data, w = weights(name, 32, 256)
    x = np.zeros((256, 256), dtype=np.float32)
    np.fill_diagonal(x, 127)

    y = _native.matmul(isa, name, data, 32, 256, x)

    scale_and_min = np.abs(w).max()
    assert np.max(np.abs(y - 127 * w.T)) <= 127 * scale_and_min * 2**-22


@every_isa
def test_q8_0_equals_int64_arithmetic(isa: str) -> None:
    rng = np.random.default_rng(3)
    codes = rng.integers(-128, 128, size=(16, 64), dtype=np.int8)
    blocks = np.zeros((16, 2, 34), dtype=np.uint8)
    blocks[:, :, :2] = np.frombuffer(np.float16(1).tobytes(), dtype=np.uint8)
    blocks[:, :, 2:] = codes.reshape(16, 2, 32).view(np.uint8)
    q = rng.integers(-127, 128, size=(7, 64)).astype(np.float32)
    q[:, ::16] = 127  # so that every scale is 1

    y = _native.matmul(isa, "q8_0", blocks.reshape(16, 68), 16, 64, q)

    np.testing.assert_array_equal(y, q.astype(np.int64) @ codes.astype(np.int64).T)


@every_isa
def test_not_a_number_stays_visible(isa: str) -> None:
    data, _ = weights("f32", 16, 64)
    x = tokens_of(2, 64)
    x[1, 5] = np.nan

    y = _native.matmul(isa, "f32", data, 16, 64, x)

    assert np.isfinite(y[0]).all() and np.isnan(y[1]).all()


def test_wrong_sizes_are_refused() -> None:
    data, _ = weights("q4_0", 16, 64)
    x = tokens_of(1, 64)

    with pytest.raises(ValueError, match="not rows"):
        _native.matmul(ISAS[0], "q4_0", data, 17, 64, x)
    with pytest.raises(ValueError, match="multiple"):
        _native.matmul(ISAS[0], "q4_0", data, 16, 63, x)
    with pytest.raises(ValueError, match="tokens, cols"):
        _native.matmul(ISAS[0], "q4_0", data, 16, 64, tokens_of(1, 96))
