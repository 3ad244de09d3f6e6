"""Converted tiny models give the logits that transformers gave, recorded in tests/golden."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from support import tiny
from support.ours import our_engine, reference_logits

GOLDEN = Path(__file__).parents[1] / "golden" / "parity"
models = pytest.mark.parametrize("model", tiny.MODELS, ids=str)
Converted = Callable[..., Path]


@dataclass(frozen=True)
class Golden:
    """What transformers computed: logits of some columns, and the range of all."""

    tokens: list[int]
    columns: NDArray[np.int16]
    logits: NDArray[np.float32]
    range: float

    def distance(self, logits: NDArray[np.floating]) -> float:
        """The largest difference, as part of the range."""
        return float(np.abs(logits[:, self.columns] - self.logits).max()) / self.range


def golden(model: tiny.Tiny) -> Golden:
    with np.load(GOLDEN / f"{model.name}.npz") as file:
        return Golden(
            file["tokens"].tolist(), file["columns"], file["logits"], float(file["range"])
        )


@models
def test_the_reference_gives_the_logits_of_transformers(
    model: tiny.Tiny, converted: Converted
) -> None:
    wanted = golden(model)

    assert wanted.tokens == model.tokens
    assert wanted.distance(reference_logits(converted(model), model.tokens)) < 1e-5


@models
def test_the_engine_gives_the_logits_of_transformers(
    model: tiny.Tiny, converted: Converted
) -> None:
    wanted = golden(model)

    with our_engine(converted(model)) as engine:
        whole = engine.logits(model.tokens)
        chunked = engine.logits(model.tokens, step=7)
        single = engine.logits(model.tokens, step=1)

    assert wanted.distance(whole) < 1e-4
    assert wanted.distance(chunked) < 1e-4
    assert wanted.distance(single) < 1e-4


def test_every_golden_file_has_its_model() -> None:
    assert {path.stem for path in GOLDEN.glob("*.npz")} == set(tiny.BY_NAME)
