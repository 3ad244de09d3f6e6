"""Converted tiny models give the logits that transformers gave, recorded in tests/golden."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support import tiny
from support.golden import GOLDEN, golden
from support.ours import our_engine, reference_logits

models = pytest.mark.parametrize("model", tiny.MODELS, ids=str)
Converted = Callable[..., Path]


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
    assert {path.stem for path in GOLDEN.glob("*.npz")} == {model.name for model in tiny.MODELS}
