"""Converted tiny models beside transformers and llama.cpp, live."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeinfer.arch.config import Activation
from support import reference, tiny
from support.ours import our_engine, reference_logits
from support.peers import LlamaCpp, Transformers

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

Converted = Callable[..., Path]
Checkpoint = Callable[[tiny.Tiny], Path]
models = pytest.mark.parametrize("model", tiny.MODELS, ids=str)
in_llama_cpp = pytest.mark.parametrize(
    "model", [model for model in tiny.MODELS if model.in_llama_cpp], ids=str
)
NEW_TOKENS = 32


def distance(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """The largest difference as part of b's range."""
    return float(np.abs(a - b).max() / (b.max() - b.min()))


def transformers_of(model: tiny.Tiny, checkpoint: Checkpoint) -> Transformers:
    return Transformers(checkpoint(model), model.config["architectures"][0])


@pytest.fixture(scope="session")
def continuation(checkpoint: Checkpoint) -> Callable[[tiny.Tiny], list[int]]:
    """Returns the likeliest NEW_TOKENS tokens after a tiny model's text, by transformers."""
    known: dict[str, list[int]] = {}

    def continue_(model: tiny.Tiny) -> list[int]:
        if model.name not in known:
            theirs = transformers_of(model, checkpoint)
            known[model.name] = theirs.greedy(model.tokens, NEW_TOKENS)
        return known[model.name]

    return continue_


@models
def test_every_logit_is_that_of_transformers(
    model: tiny.Tiny, checkpoint: Checkpoint, converted: Converted
) -> None:
    wanted = transformers_of(model, checkpoint).logits(model.tokens)

    assert distance(reference_logits(converted(model), model.tokens), wanted) < 1e-5
    with our_engine(converted(model)) as engine:
        for step in (None, 7, 1):
            assert distance(engine.logits(model.tokens, step=step), wanted) < 1e-4


@in_llama_cpp
def test_llama_cpp_continues_as_transformers_does(
    model: tiny.Tiny, converted: Converted, continuation: Callable[[tiny.Tiny], list[int]]
) -> None:
    for quant in ("f32", "f16"):
        found = LlamaCpp(converted(model, quant)).greedy(model.tokens, NEW_TOKENS)

        assert found == continuation(model)


@in_llama_cpp
def test_every_logit_of_llama_cpp_is_the_reference_s(
    model: tiny.Tiny, converted: Converted, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = reference.ACTIVATIONS[Activation.GELU_TANH]
    monkeypatch.setitem(
        reference.ACTIVATIONS,
        Activation.GELU_TANH,
        lambda x: exact(x.astype(np.float16).astype(np.float64)).astype(
            np.float16
        ),  # which llama.cpp looks up
    )

    found = LlamaCpp(converted(model)).logits(model.tokens)

    # A sum that is rounded otherwise takes the table's next value.
    bound = 5e-4 if model.arch.activation is Activation.GELU_TANH else 1e-4
    assert distance(found, reference_logits(converted(model), model.tokens)) < bound


@models
def test_the_engine_continues_as_transformers_does(
    model: tiny.Tiny, converted: Converted, continuation: Callable[[tiny.Tiny], list[int]]
) -> None:
    for quant in ("f32", "f16"):
        with our_engine(converted(model, quant)) as engine:
            assert engine.greedy(model.tokens, NEW_TOKENS) == continuation(model)


@pytest.mark.parametrize(
    "quant", ["bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q4_k_m", "q6_k"]
)
def test_quantised_files_open_in_llama_cpp(quant: str, converted: Converted) -> None:
    """The quality of a type is tested with the types; here, that it is read as it is meant."""
    shape = {"hidden_size": 256, "intermediate_size": 512}  # whole blocks of 256
    wide = tiny.BY_NAME["llama-gqa64-tied"]
    wide = dataclasses.replace(wide, name="llama-wide", config={**wide.config, **shape})
    path = converted(wide, quant)

    found = LlamaCpp(path).logits(wide.tokens)

    # llama.cpp rounds activations to 8 bits where weights are quantised.
    assert distance(found, reference_logits(path, wide.tokens)) < 0.05
