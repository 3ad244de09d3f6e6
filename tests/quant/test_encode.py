"""Encoders: how far decoded weights are from the originals, and odd inputs."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeinfer import _native, quant
from edgeinfer.errors import UnsupportedError, UsageError
from edgeinfer.quant import QuantType
from edgeinfer.quant.recipes import NEED_IMPORTANCE
from support.peers import quantize_by_llama_cpp

Rows = NDArray[np.float32]

TYPES = pytest.mark.parametrize("quant_type", quant.all_types(), ids=str)
SCALED = [t for t in quant.all_types() if not t.is_float]

# Codes a value can take; mxfp4 is uneven and has only powers of two as scales.
LEVELS = {
    "q8_0": 255, "q6_k": 64, "q5_k": 32, "q5_1": 32, "q5_0": 32, "q4_k": 16, "q4_1": 16,
    "q4_0": 16, "iq4_nl": 16, "iq4_xs": 16, "q3_k": 8, "q2_k": 4,
}  # fmt: skip
SUB_BLOCK = {"q6_k": 16, "q3_k": 16, "q2_k": 16}
WITH_MINIMUM = {"q5_k", "q5_1", "q4_k", "q4_1", "q2_k"}

# Scales of 16 or 32 values, in nibbles: where they are in a block, and the levels for a scale of 1.
ON_POINTS = {
    "iq3_s": (slice(106, 110), 32), "iq2_s": (slice(74, 82), 16), "iq2_xs": (slice(66, 74), 16),
    "iq3_xxs": (slice(66, 98), 32), "iq2_xxs": (slice(2, 66), 32),
}  # fmt: skip


def gaussian(rows: int = 64, cols: int = 768, seed: int = 0) -> Rows:
    return np.random.default_rng(seed).normal(0, 0.02, (rows, cols)).astype(np.float32)


def round_trip(quant_type: QuantType, x: Rows, importance: Rows | None = None) -> Rows:
    data = quant.encode(quant_type, x, importance=importance)
    return quant.decode(quant_type, data, x.shape[1])


def squared_error(x: Rows, y: Rows, weights: Rows | float = 1.0) -> float:
    return float(np.mean((x.astype(np.float64) - y) ** 2 * weights))


def rounded_to_a_grid(quant_type: QuantType, x: Rows) -> Rows:
    """The plain method in float64: exact scales, the whole range of a sub-block in equal steps."""
    steps = LEVELS[quant_type.name] - 1
    blocks = x.astype(np.float64).reshape(len(x), -1, SUB_BLOCK.get(quant_type.name, 32))
    if quant_type.name in WITH_MINIMUM:
        low = np.minimum(blocks.min(axis=-1, keepdims=True), 0)
        step = (blocks.max(axis=-1, keepdims=True) - low) / steps
    else:
        step = 2 * np.abs(blocks).max(axis=-1, keepdims=True) / steps
        low = -step * steps / 2
    return (low + step * np.round((blocks - low) / step)).reshape(x.shape).astype(np.float32)


@pytest.mark.parametrize("quant_type", [t for t in SCALED if t.name in LEVELS], ids=str)
def test_the_error_is_at_most_that_of_plain_rounding(quant_type: QuantType) -> None:
    x = gaussian()

    ours = squared_error(x, round_trip(quant_type, x))

    assert ours <= 1.01 * squared_error(x, rounded_to_a_grid(quant_type, x))


@pytest.mark.parametrize(("name", "relative"), [("f32", 0), ("f16", 2**-11), ("bf16", 2**-8)])
def test_floats_round_to_the_nearest(name: str, relative: float) -> None:
    x = gaussian()
    subnormal = 2**-25 if name == "f16" else 0  # half a step below 6e-5

    error = np.abs(round_trip(quant.get(name), x) - x)

    assert (error <= np.maximum(relative * np.abs(x), subnormal)).all()


def test_mxfp4_is_at_least_as_close_as_the_gguf_package() -> None:
    mxfp4 = quant.get("mxfp4")
    x = gaussian()
    theirs = gguf.quantize(x, gguf.GGMLQuantizationType.MXFP4)

    error = squared_error(x, round_trip(mxfp4, x))

    assert error <= squared_error(x, quant.decode(mxfp4, theirs, x.shape[1]))


@pytest.mark.parametrize("name", ["q8_0", "f16", "bf16"])
def test_bytes_equal_those_of_the_gguf_package(name: str) -> None:
    quant_type = quant.get(name)
    x = gaussian() * np.geomspace(1e-3, 1e3, 64, dtype=np.float32)[:, None]

    expected = gguf.quantize(x, gguf.GGMLQuantizationType(quant_type.ggml_id)).view(np.uint8)

    assert (quant.encode(quant_type, x) == expected.reshape(len(x), -1)).all()


@TYPES
@pytest.mark.parametrize("magnitude", [1e-2, 1.0, 1e3])
def test_a_constant_row_is_nearly_exact(quant_type: QuantType, magnitude: float) -> None:
    for value in (-magnitude, magnitude):
        x = np.full((2, 256), value, dtype=np.float32)

        tolerance = 0.21 if quant_type.name == "mxfp4" else 0.01
        assert np.abs(round_trip(quant_type, x) / x - 1).max() <= tolerance


@TYPES
def test_zeros_stay_zero(quant_type: QuantType) -> None:
    assert (round_trip(quant_type, np.zeros((3, 512), dtype=np.float32)) == 0).all()


@pytest.mark.parametrize("quant_type", SCALED, ids=str)
@pytest.mark.parametrize("huge", [1e3, 1e38, np.inf, -np.inf, np.nan])
def test_one_wild_value_spoils_only_its_own_block(quant_type: QuantType, huge: float) -> None:
    x = gaussian(2, 512)
    expected = round_trip(quant_type, x)
    x[1, 300] = huge

    decoded = round_trip(quant_type, x)

    assert np.isfinite(decoded).all()
    start = 300 // quant_type.block * quant_type.block
    decoded[1, start : start + quant_type.block] = expected[1, start : start + quant_type.block]
    assert (decoded == expected).all()


@pytest.mark.parametrize("quant_type", SCALED, ids=str)
def test_a_huge_value_that_the_scale_can_hold_is_kept(quant_type: QuantType) -> None:
    x = gaussian(1, 256)
    x[0, 77] = -1000

    # Where no level is near 0, it costs less to have all values a little wrong.
    no_zero = quant_type.name in ON_POINTS or quant_type.name in ("iq1_s", "iq1_m")
    assert round_trip(quant_type, x)[0, 77] == pytest.approx(-1000, rel=0.55 if no_zero else 0.07)


@pytest.mark.parametrize("quant_type", SCALED, ids=str)
def test_values_too_small_for_a_scale_become_zero_or_tiny(quant_type: QuantType) -> None:
    x = np.full((1, 256), 1e-42, dtype=np.float32)

    assert (np.abs(round_trip(quant_type, x)) <= 1e-38).all()


@pytest.mark.parametrize("name", ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl", "mxfp4"])
def test_values_on_a_grid_come_back_exactly(name: str) -> None:
    quant_type = quant.get(name)
    rng = np.random.default_rng(3)
    data = rng.integers(0, 256, (64, quant_type.nbytes((256,))), dtype=np.uint8)
    blocks = data.reshape(-1, quant_type.block_bytes)
    if name == "mxfp4":
        blocks[:, 0] = rng.integers(100, 140, len(blocks))
    else:
        blocks[:, :2] = np.float16([1.25]).view(np.uint8)
    if name in WITH_MINIMUM:
        blocks[:, 2:4] = np.float16([-20.5]).view(np.uint8)
    # The outermost codes occur: of value 0 the least, of value 16 the largest.
    blocks[:, -16] = 0x81 if name == "q8_0" else 0xF0
    if name == "q5_1":
        blocks[:, 4:8] = blocks[:, 4:8] & 0xFE | [0, 0, 1, 0]
    elif name == "q5_0":
        blocks[:, 2:6] = blocks[:, 2:6] & 0xFE | [0, 0, 1, 0]
    elif name == "q8_0":
        blocks[:, 2:] = np.maximum(blocks[:, 2:].view(np.int8), -127).view(np.uint8)
    x = quant.decode(quant_type, data, 256)

    error = squared_error(x, round_trip(quant_type, x)) / squared_error(x, np.zeros_like(x))

    assert error < 1e-7  # rounding of the scale to a half at most


@pytest.mark.parametrize("quant_type", [t for t in SCALED if t.name != "q8_0"], ids=str)
def test_importance_moves_the_error_where_it_counts_less(quant_type: QuantType) -> None:
    x = gaussian()
    importance = np.random.default_rng(1).lognormal(0, 2, x.shape[1]).astype(np.float32)

    plain = squared_error(x, round_trip(quant_type, x), importance)
    weighted = squared_error(x, round_trip(quant_type, x, importance), importance)

    assert weighted < 0.98 * plain


@pytest.mark.parametrize("quant_type", SCALED, ids=str)
@pytest.mark.parametrize("odd", [0.0, -1.0, np.nan, np.inf, 1e-30])
def test_odd_importances_do_no_harm(quant_type: QuantType, odd: float) -> None:
    x = gaussian(4, 512)
    importance = np.ones(512, dtype=np.float32)
    importance[::2] = odd

    decoded = round_trip(quant_type, x, importance)

    assert np.isfinite(decoded).all()
    counts = slice(None, None, 2) if odd == np.inf else slice(1, None, 2)
    plain = squared_error(x[:, counts], round_trip(quant_type, x)[:, counts])
    assert squared_error(x[:, counts], decoded[:, counts]) <= 1.001 * plain


@TYPES
@pytest.mark.parametrize("threads", [2, 3, 100])
def test_any_number_of_threads_writes_the_same_bytes(quant_type: QuantType, threads: int) -> None:
    x = gaussian(7, 256)

    assert (
        quant.encode(quant_type, x, threads=threads) == quant.encode(quant_type, x, threads=1)
    ).all()


@TYPES
@pytest.mark.parametrize("isa", _native.isas())
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "importance"])
def test_every_instruction_set_writes_the_same_bytes(
    quant_type: QuantType, isa: str, weighted: bool
) -> None:
    rng = np.random.default_rng(7)
    x = rng.standard_t(3, (5, 768)).astype(np.float32)
    x[0, :3] = np.nan, np.inf, 1e-42
    importance = rng.lognormal(0, 2, 768).astype(np.float32) if weighted else None

    written = _native.encode(quant_type.name, x, importance=importance, isa=isa)

    expected = _native.encode(quant_type.name, x, importance=importance, isa="scalar")
    np.testing.assert_array_equal(written, expected)


@TYPES
def test_sizes_follow_the_shape(quant_type: QuantType) -> None:
    assert quant_type.nbytes((5, 512)) == quant.encode(quant_type, gaussian(5, 512)).size
    assert quant_type.bits_per_weight == 8 * quant_type.nbytes((512,)) / 512
    assert quant.get(quant_type.name.upper()) == quant.by_ggml_id(quant_type.ggml_id) == quant_type


def test_rows_must_be_whole_blocks() -> None:
    q4_k = quant.get("q4_k")
    with pytest.raises(UsageError, match="blocks of 256 values, not 300"):
        q4_k.nbytes((2, 300))
    with pytest.raises(UsageError, match="blocks of 256"):
        quant.encode(q4_k, gaussian(1, 300))
    with pytest.raises(UsageError, match="143 bytes are not rows"):
        quant.decode(q4_k, np.zeros(143, dtype=np.uint8), 256)


def test_unknown_types_are_named() -> None:
    with pytest.raises(UsageError, match="'q9_9'"):
        quant.get("q9_9")
    with pytest.raises(UnsupportedError, match="type 4 "):
        quant.by_ggml_id(4)


def scales_of(name: str, data: NDArray[np.uint8]) -> Rows:
    """d * (2 * scale + 1), as one for each eight values: (rows, 32)."""
    part, sub = ON_POINTS[name]
    stored = np.ascontiguousarray(data[:, part])
    if name == "iq2_xxs":
        nibbles = (stored.view("<u4")[:, 1::2] >> 28).astype(np.float32)
    elif name == "iq3_xxs":
        nibbles = (stored.view("<u4") >> 28).astype(np.float32)
    else:
        nibbles = np.stack([stored & 15, stored >> 4], axis=-1).reshape(len(data), -1)
    d = np.ascontiguousarray(data[:, :2]).view(np.float16).astype(np.float32)
    return np.repeat(d * (2 * nibbles.astype(np.float32) + 1), sub // 8, axis=1)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "importance"])
@pytest.mark.parametrize("name", ON_POINTS)
def test_no_other_point_or_signs_are_nearer(name: str, weighted: bool) -> None:
    """All points of the ``gguf`` package's grid are tried, before blocks are stretched."""
    vendor = gguf.quants._type_traits[gguf.GGMLQuantizationType[name.upper()]]
    vendor.init_grid()
    factor = {"iq2": 1 / 8, "iq3": 1 if name == "iq3_s" else 1 / 4}[name[:3]]
    grid = vendor.grid.reshape(-1, vendor.grid.shape[-1]).astype(np.float32) * factor
    x = gaussian(8, 256)
    importance = np.random.default_rng(4).lognormal(0, 1, 256) if weighted else np.ones(256)
    importance = importance.astype(np.float32)
    quant_type = quant.get(name)
    data = quant.encode(quant_type, x, importance=importance if weighted else None)

    decoded = quant.decode(quant_type, data, 256)
    stretched = stretch_of(x, decoded, importance)
    found = (x - decoded / stretched) ** 2 * importance
    found = found.reshape(8, 32, 8).sum(-1)

    values = np.abs(x).reshape(8, 32, -1, 1, grid.shape[1])  # ..., points of eight, grid, values
    weights = np.broadcast_to(importance, x.shape).reshape(values.shape)
    levels = (scales_of(name, data) / stretched)[:, :, None, None, None] * grid
    errors = (weights * (values - levels) ** 2).sum(-1)
    least = errors.min(-1).sum(-1)
    if name.endswith(("xs", "xxs")):  # one sign is turned where the number of minus is odd
        turned = (errors + (4 * weights * values * levels).min(-1)).min(-1)
        rest = least[..., None] - errors.min(-1)
        odd = (x < 0).reshape(8, 32, 8).sum(-1) % 2 == 1
        least = np.where(odd, (turned + rest).min(-1), least)
    np.testing.assert_allclose(found, least, rtol=5e-3)


def stretch_of(x: Rows, decoded: Rows, weights: Rows | float) -> Rows:
    """By how much each row, one block, was stretched: by 1 + 0.7 (xx / xy - 1), y before that."""
    along = (weights * x * decoded).sum(-1, keepdims=True)
    energy = (weights * x * x).sum(-1, keepdims=True)
    found: Rows = 0.3 / (1 - 0.7 * energy / along)
    return found


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "importance"])
@pytest.mark.parametrize("quant_type", [t for t in SCALED if t.block == 256], ids=str)
def test_a_block_has_most_of_its_length(quant_type: QuantType, weighted: bool) -> None:
    """The fit of least error is shorter, by the share of error: 0.7 of that is given back."""
    x = gaussian(64, 256)
    importance = np.random.default_rng(4).lognormal(0, 1, 256).astype(np.float32)
    weights: Rows | float = importance if weighted else 1.0
    decoded = round_trip(quant_type, x, importance if weighted else None)

    along = float((weights * x * decoded).sum() / (weights * x * x).sum())
    error = float((weights * (x - decoded) ** 2).sum() / (weights * x * x).sum())

    assert 1 - along <= 0.4 * error + 1e-3


def llama_cpp_round_trip(quant_type: QuantType, x: Rows, importance: Rows | None) -> Rows:
    if importance is None and quant_type.name in NEED_IMPORTANCE:  # or it ends the process
        importance = np.ones(x.shape[1], dtype=np.float32)
    return quant.decode(quant_type, quantize_by_llama_cpp(quant_type, x, importance), x.shape[1])


@pytest.fixture(scope="module")
def real_rows(smollm2: Path) -> Rows:
    """Rows of SmolLM2's embedding, which its file keeps in 8 bits, as rows of 768."""
    embedding = next(t for t in gguf.GGUFReader(smollm2).tensors if t.name == "token_embd.weight")
    rows = gguf.dequantize(embedding.data[::128], embedding.tensor_type)
    return np.ascontiguousarray(rows[:256].reshape(-1, 768), dtype=np.float32)


@pytest.mark.peer
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "importance"])
@pytest.mark.parametrize("source", ["gaussian", "laplace", "real"])
@pytest.mark.parametrize("quant_type", SCALED, ids=str)
def test_the_error_is_at_most_that_of_llama_cpp(
    quant_type: QuantType, source: str, weighted: bool, request: pytest.FixtureRequest
) -> None:
    rng = np.random.default_rng(5)
    if source == "real":
        x: Rows = request.getfixturevalue("real_rows")
    elif source == "laplace":
        x = rng.laplace(0, 0.02, (128, 768)).astype(np.float32)
    else:
        x = gaussian(128)
    importance = rng.lognormal(0, 1, x.shape[1]).astype(np.float32) if weighted else None
    weights: Rows | float = 1.0 if importance is None else importance

    ours = squared_error(x, round_trip(quant_type, x, importance), weights)
    theirs = squared_error(x, llama_cpp_round_trip(quant_type, x, importance), weights)

    assert ours <= 1.01 * theirs, f"{ours / theirs:.3f} times llama.cpp's"
