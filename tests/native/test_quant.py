"""Every quant type's bytes: decoding against the gguf package, packing against decoding."""

from __future__ import annotations

import warnings

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

import edgeinfer._native as _native
from edgeinfer import quant
from edgeinfer.quant import QuantType

TYPES = pytest.mark.parametrize("quant_type", quant.all_types(), ids=str)
ROWS = (1, 15, 16, 17, 33)

# Where the halves (and the byte exponent) of a block's scales lie.
HALVES = {
    "q8_0": (0,), "q4_0": (0,), "q5_0": (0,), "iq4_nl": (0,), "iq4_xs": (0,),
    "q4_1": (0, 2), "q5_1": (0, 2), "q4_k": (0, 2), "q5_k": (0, 2),
    "q2_k": (80, 82), "q3_k": (108,), "q6_k": (208,),
    "iq3_s": (0,), "iq3_xxs": (0,), "iq2_s": (0,), "iq2_xs": (0,), "iq2_xxs": (0,), "iq1_s": (0,),
    "tq1_0": (52,), "tq2_0": (64,),
}  # fmt: skip
EXTREME_HALVES = np.array(
    [
        0x0000,
        0x8000,
        0x0001,
        0x8001,
        0x03FF,
        0x0400,
        0x3C00,
        0x7BFF,
        0xFBFF,
        0x7C00,
        0xFC00,
        0x7E01,
    ],
    dtype=np.uint16,
)  # zeros, subnormals, one, the largest, infinities, NaN


def random_blocks(quant_type: QuantType, rows: int, cols: int) -> NDArray[np.uint8]:
    """Random bytes: every code, every integer scale, any half."""
    rng = np.random.default_rng([quant_type.ggml_id, rows, cols])
    return rng.integers(0, 256, (rows, quant_type.nbytes((cols,))), dtype=np.uint8)


def reference(quant_type: QuantType, data: NDArray[np.uint8]) -> NDArray[np.float32]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # random halves include infinities
        return gguf.dequantize(data, gguf.GGMLQuantizationType(quant_type.ggml_id))


def assert_same_bits(actual: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """The same bits, signs of zeros included; any NaN equals any NaN."""
    both_nan = np.isnan(actual) & np.isnan(expected)
    same = (actual.view(np.uint32) == expected.view(np.uint32)) | both_nan
    assert same.all(), f"{(~same).sum()} of {same.size} values differ"


@TYPES
def test_numbers_of_the_type_are_those_of_the_gguf_package(quant_type: QuantType) -> None:
    theirs = gguf.GGMLQuantizationType(quant_type.ggml_id)

    assert theirs.name.lower() == quant_type.name
    assert gguf.GGML_QUANT_SIZES[theirs] == (quant_type.block, quant_type.block_bytes)


@TYPES
def test_decoding_is_bit_exact_on_random_bytes(quant_type: QuantType) -> None:
    data = random_blocks(quant_type, 64, 512)

    assert_same_bits(quant.decode(quant_type, data, 512), reference(quant_type, data))


@pytest.mark.parametrize("name", HALVES)
def test_decoding_is_bit_exact_with_extreme_scales(name: str) -> None:
    quant_type = quant.get(name)
    blocks = random_blocks(quant_type, len(EXTREME_HALVES) ** 2, quant_type.block)
    grid = np.stack(np.meshgrid(EXTREME_HALVES, EXTREME_HALVES), axis=-1).reshape(-1, 2)
    for column, offset in enumerate(HALVES[name]):
        blocks[:, offset : offset + 2] = grid[:, column : column + 1].copy().view(np.uint8)

    expected = reference(quant_type, blocks)

    assert_same_bits(quant.decode(quant_type, blocks, quant_type.block), expected)


def test_the_scattered_half_of_iq1_m_decodes_bit_exactly() -> None:
    iq1_m = quant.get("iq1_m")
    blocks = random_blocks(iq1_m, len(EXTREME_HALVES), 256)
    for nibble in range(4):  # the upper four bits of a scale's word each
        top = (EXTREME_HALVES >> (4 * nibble) & 15).astype(np.uint8) << 4
        blocks[:, 49 + 2 * nibble] = blocks[:, 49 + 2 * nibble] & 15 | top

    assert_same_bits(quant.decode(iq1_m, blocks, 256), reference(iq1_m, blocks))


def test_every_mxfp4_exponent_decodes_bit_exactly() -> None:
    mxfp4 = quant.get("mxfp4")
    blocks = random_blocks(mxfp4, 256, 32)
    blocks[:, 0] = np.arange(256)

    assert_same_bits(quant.decode(mxfp4, blocks, 32), reference(mxfp4, blocks))
    packed = _native.pack("mxfp4", blocks, 256, 32)
    rows = np.stack([_native.unpack_row("mxfp4", packed, 256, 32, r) for r in range(256)])
    assert_same_bits(rows, reference(mxfp4, blocks))


def test_every_half_converts_as_numpy_does() -> None:
    halves = np.arange(65536, dtype=np.uint16)
    expected = halves.view(np.float16).astype(np.float32)

    assert_same_bits(quant.decode(quant.get("f16"), halves.view(np.uint8), 65536)[0], expected)


def test_floats_round_to_halves_as_numpy_does() -> None:
    exact = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middle = (exact[1:] + exact[:-1]) / 2
    any_bits = np.random.default_rng(0).integers(0, 2**32, 300_000, dtype=np.uint32)
    x = np.concatenate(
        [exact, -exact, middle, np.nextafter(middle, np.float32(9e9)), np.nextafter(middle, 0),
         any_bits.view(np.float32), np.array([65519.9, 65520.0, np.inf, -np.inf])],
        dtype=np.float32,
    )  # fmt: skip

    halves = quant.encode(quant.get("f16"), x[None]).view(np.float16)[0]

    with np.errstate(all="ignore"):
        expected = x.astype(np.float16)
    assert (np.isnan(halves) == np.isnan(x)).all()
    assert (halves.view(np.uint16) == expected.view(np.uint16))[~np.isnan(x)].all()


@TYPES
@pytest.mark.parametrize("blocks", [1, 2, 5])
@pytest.mark.parametrize("rows", ROWS)
def test_a_packed_row_reads_back_as_it_decodes(
    quant_type: QuantType, rows: int, blocks: int
) -> None:
    cols = quant_type.block * blocks if quant_type.block > 1 else 19 * blocks
    data = random_blocks(quant_type, rows, cols)

    packed = _native.pack(quant_type.name, data, rows, cols)

    padded = (rows + 15) // 16 * 16
    assert packed.size == padded * (cols // quant_type.block) * quant_type.packed_bytes
    expected = quant.decode(quant_type, data, cols)
    for row in range(rows):
        actual = _native.unpack_row(quant_type.name, packed, rows, cols, row)
        assert_same_bits(actual, expected[row])


@TYPES
@pytest.mark.parametrize("isa", _native.isas())
@pytest.mark.parametrize("rows", ROWS)
def test_every_isa_packs_the_same_bytes(quant_type: QuantType, rows: int, isa: str) -> None:
    for cols in {3 * quant_type.block, 19 * quant_type.block, 8 * quant_type.block}:
        data = random_blocks(quant_type, rows, cols)

        plain = _native.pack(quant_type.name, data, rows, cols)

        assert (_native.pack(quant_type.name, data, rows, cols, isa=isa) == plain).all()


@TYPES
def test_rows_that_pad_the_last_group_are_zero(quant_type: QuantType) -> None:
    cols = max(quant_type.block, 32)
    packed = _native.pack(quant_type.name, random_blocks(quant_type, 3, cols), 3, cols)

    for row in range(3, 16):
        assert (_native.unpack_row(quant_type.name, packed, 16, cols, row) == 0).all()


@TYPES
def test_packing_keeps_a_group_apart_from_its_neighbours(quant_type: QuantType) -> None:
    cols = max(quant_type.block, 32)
    data = random_blocks(quant_type, 48, cols)

    whole = _native.pack(quant_type.name, data, 48, cols)
    parts = [_native.pack(quant_type.name, data[g : g + 16], 16, cols) for g in (0, 16, 32)]

    assert (whole == np.concatenate(parts)).all()


def test_wrong_sizes_are_refused() -> None:
    data = np.zeros((2, 18), dtype=np.uint8)
    with pytest.raises(ValueError, match="multiple of 32"):
        _native.decode("q4_0", data, 2, 33)
    with pytest.raises(ValueError, match="expected 54 bytes, got 36"):
        _native.decode("q4_0", data, 3, 32)
    with pytest.raises(ValueError, match="expected 54 bytes, got 36"):
        _native.pack("q4_0", data, 3, 32)
    with pytest.raises(ValueError, match="out of range"):
        _native.decode("q4_0", data, -2, 32)
    with pytest.raises(ValueError, match="out of range"):
        _native.pack("q4_0", data, 1 << 40, 1 << 40)
    with pytest.raises(ValueError, match="no quant type q9_9"):
        _native.pack("q9_9", data, 2, 32)
    with pytest.raises(IndexError):
        _native.unpack_row("q4_0", np.zeros(288, dtype=np.uint8), 2, 32, 2)
    with pytest.raises(TypeError):
        _native.decode("q4_0", data.astype(np.float64), 2, 32)  # type: ignore[arg-type]
    x = np.zeros((2, 32), dtype=np.float32)
    with pytest.raises(ValueError, match="one value per column"):
        _native.encode("q4_0", x, 1, np.ones(31, dtype=np.float32))
    with pytest.raises(ValueError, match="threads"):
        _native.encode("q4_0", x, 0)
