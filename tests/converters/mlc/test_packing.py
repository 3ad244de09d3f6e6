"""Codes, words and scales: MLC LLM's rules, written out weight by weight, give the same bits."""

from __future__ import annotations

import numpy as np
import pytest

from edgeinfer.errors import UsageError
from edgeinfer.formats.mlc.quants import QUANTS, get_quant
from edgeinfer_converters.mlc.packing import encode_as_mlc, pack, rounded, unpack
from support import mlc_folder

rng = np.random.default_rng(7)
WEIGHTS = {
    "normal": rng.standard_normal((6, 160)).astype(np.float32),
    "rows that end within a group": rng.standard_normal((5, 100)).astype(np.float32),
    "ties": (rng.integers(-14, 15, (6, 160)) / 14).astype(np.float32),
    "tiny": (rng.standard_normal((4, 160)) * 3e-7).astype(np.float32),
    "one weight a group": np.eye(4, 160, dtype=np.float32),
    "zeros": np.zeros((2, 160), np.float32),
    "far apart": (rng.standard_normal((4, 160)) * np.logspace(-6, 3, 160)).astype(np.float32),
}


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("name", mlc_folder.FORMATS)
def test_codes_and_scales_are_those_of_mlc(name: str, weights: np.ndarray) -> None:
    words, scales = encode_as_mlc(weights, QUANTS[name])

    expected_words, expected_scales = mlc_folder.mlc_matrix(weights, name)
    np.testing.assert_array_equal(words, expected_words)
    np.testing.assert_array_equal(scales, expected_scales)


def test_words_that_were_computed_by_hand() -> None:
    # Scale 1: -7 is code 0, 0 is 7, 7 is 14, in nibbles from the lowest on.
    row = np.zeros((1, 32), np.float32)
    row[0, :3] = -7, 7, 1

    words, scales = encode_as_mlc(row, QUANTS["q4f16_1"])

    assert [f"{word:08x}" for word in words[0]] == ["777778e0", "77777777"] + ["77777777"] * 2
    assert scales.tolist() == [[1.0]]


def test_three_bits_leave_two_of_a_word() -> None:
    codes = np.full((1, 40), 7, np.uint8)

    assert pack(codes, QUANTS["q3f16_1"]).tolist() == [[(1 << 30) - 1] * 4]


@pytest.mark.parametrize("name", mlc_folder.FORMATS)
def test_unpacking_undoes_packing(name: str) -> None:
    quant = QUANTS[name]
    codes = rng.integers(0, 1 << quant.bits, (3, 2 * quant.group), dtype=np.uint8)

    np.testing.assert_array_equal(unpack(pack(codes, quant), quant), codes)


def test_bfloat16_is_rounded_as_ml_dtypes_does() -> None:
    values = np.concatenate([w.reshape(-1) for w in WEIGHTS.values()])
    ties = (np.arange(1000, dtype=np.uint32) << 15 | 0x3F000000).view(np.float32)

    for given in (values, ties):
        np.testing.assert_array_equal(rounded(given, "bfloat16"), mlc_folder.to_bfloat16(given))


def test_the_names_of_formats() -> None:
    assert get_quant("Q4F16_1").name == "q4f16_1"
    with pytest.raises(UsageError, match="q8f16_1") as raised:
        get_quant("q8f16_1")
    assert "q4f16_1" in str(raised.value.hint)
