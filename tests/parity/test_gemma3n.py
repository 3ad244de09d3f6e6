"""Gemma 3n beside llama.cpp, and what its checkpoints and files have that others have not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeinfer.arch.config import Activation
from support import reference, tiny
from support.ours import reference_logits
from support.peers import LlamaCpp

Converted = Callable[..., Path]
Checkpoint = Callable[[tiny.Tiny], Path]
SHARED = tiny.BY_NAME["gemma3n-mqa32-shared"]


@pytest.fixture
def as_llama_cpp_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks gelu up, and takes the deviation of gates as that of a sample, by n - 1."""
    exact, deviation = reference.ACTIVATIONS[Activation.GELU_TANH], np.std
    monkeypatch.setitem(
        reference.ACTIVATIONS,
        Activation.GELU_TANH,
        lambda x: exact(x.astype(np.float16).astype(np.float64)).astype(np.float16),
    )
    monkeypatch.setattr(np, "std", lambda x, **how: deviation(x, ddof=1, **how))


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_llama_cpp_computes_the_reference_s_logits(
    converted: Converted, as_llama_cpp_computes: None
) -> None:
    model = tiny.GEMMA3N_OF_LLAMA_CPP
    path = converted(model)
    theirs = LlamaCpp(path)

    logits, ours = theirs.logits(model.tokens), reference_logits(path, model.tokens)
    assert np.abs(logits - ours).max() < 1e-3 * np.ptp(ours)

    found = theirs.greedy(model.tokens, 8)
    after = reference_logits(path, [*model.tokens, *found[:-1]])[len(model.tokens) - 1 :]
    assert found == after.argmax(axis=-1).tolist()
