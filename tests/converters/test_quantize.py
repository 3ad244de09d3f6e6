"""Encoding a tensor block by block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeinfer import quant
from edgeinfer.quant import QuantType
from edgeinfer_converters import quantize


@dataclass(frozen=True)
class Given:
    """A tensor in memory."""

    values: NDArray[np.float32]
    name: str = "blk.0.ffn_down.weight"
    form: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.form or self.values.shape

    def stored(self, type: QuantType, first: int, last: int) -> NDArray[np.uint8] | None:
        return None

    def read(self, first: int, last: int) -> NDArray[np.float32]:
        return self.values[first:last]

    def release(self) -> None:
        pass


def test_every_block_of_rows_is_encoded_with_the_importance_of_its_columns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    tensor = Given(rng.normal(size=(40, 256)).astype(np.float32))
    importance = rng.lognormal(0, 2, (1, 256)).astype(np.float32)
    q4_k = quant.get("q4_k")
    monkeypatch.setattr(quantize, "BLOCK_VALUES", 3 * 256)

    blocks = list(quantize.encoded_blocks(tensor, q4_k, threads=1, importance=importance))

    assert len(blocks) == 14
    expected = quant.encode(q4_k, tensor.values, importance=importance[0])
    np.testing.assert_array_equal(np.concatenate(blocks), expected)
    assert (expected != quant.encode(q4_k, tensor.values)).any()


def test_every_expert_is_encoded_with_the_importance_of_its_own_columns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    experts = rng.normal(size=(5, 8, 256)).astype(np.float32)
    importance = rng.lognormal(0, 2, (5, 256)).astype(np.float32)
    tensor = Given(experts.reshape(40, 256), form=experts.shape)
    q4_k = quant.get("q4_k")
    monkeypatch.setattr(quantize, "BLOCK_VALUES", 11 * 256)  # blocks end within experts

    blocks = list(quantize.encoded_blocks(tensor, q4_k, threads=1, importance=importance))

    assert len(blocks) == 4
    expected = [
        quant.encode(q4_k, x, importance=i) for x, i in zip(experts, importance, strict=True)
    ]
    np.testing.assert_array_equal(np.concatenate(blocks), np.concatenate(expected))
