"""The same model and tokens give the same answer: for any number of threads to the last bit, for
any instruction set to the token."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeinfer import _native
from support import tiny
from support.ours import OurEngine, our_engine

Converted = Callable[..., Path]
Prompts = list[tuple[str, list[int]]]  # of a file

# Rows of 256 and more, which the types with blocks of 256 need.
WIDE = dataclasses.replace(
    tiny.BY_NAME["llama-gqa64-tied"],
    name="llama-gqa64-wide",
    config={
        **tiny.BY_NAME["llama-gqa64-tied"].config,
        "hidden_size": 256,
        "intermediate_size": 512,
    },
)
# Of a family with and without experts the last is without: a router near a tie changes everything.
FAMILIES = {model.arch.name: model for model in tiny.MODELS}
CASES = [
    *((model, quant) for model in FAMILIES.values() for quant in ("q4_0", "q8_0")),
    *((WIDE, quant) for quant in ("f32", "f16", "q5_1", "q2_k", "q4_k_m", "q6_k", "iq4_xs")),
]
cases = pytest.mark.parametrize(
    ("model", "quant"), CASES, ids=[f"{model}-{quant}" for model, quant in CASES]
)

THREADS = (1, 2, 3, 4)
CONTEXT = 768
NEW_TOKENS = 24


def text(model: tiny.Tiny, count: int) -> list[int]:
    random = np.random.default_rng(5)
    return [int(t) for t in random.integers(0, model.config["vocab_size"], count)]


def answers(engine: OurEngine, model: tiny.Tiny) -> dict[str, NDArray[np.float32]]:
    """A long prompt, chunks, single tokens, and sequences side by side."""
    long = text(model, 700)
    return {
        "prompt": engine.logits(long),
        "chunks": engine.logits(long[:300], step=37),
        "single": engine.logits(long[:20], step=1),
        "batch": engine.together(long[:600], long[100:101], long[50:57], long[7:8]),
    }


@cases
def test_any_number_of_threads_gives_the_same_bits(
    converted: Converted, model: tiny.Tiny, quant: str
) -> None:
    results = []
    for threads in THREADS:
        options = {"threads": threads, "context": CONTEXT, "kv_type": "f16"}
        with our_engine(converted(model, quant), **options) as engine:
            results.append(answers(engine, model))

    for other in results[1:]:
        for name, logits in results[0].items():
            np.testing.assert_array_equal(other[name], logits, err_msg=name)


def greedy_on(isa: str, prompts: Prompts) -> list[list[tuple[int, float]]]:
    """Runs the prompts in a process of its own, for an instruction set is chosen once."""
    result = subprocess.run(
        [sys.executable, "-m", "support.greedy", json.dumps(prompts), str(NEW_TOKENS)],
        env={**os.environ, "EDGEINFER_ISA": isa, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(result.stdout)
    assert answer["isa"] == isa
    return list(answer["steps"])


def assert_same_tokens(prompts: Prompts, *, near: float, share: float) -> None:
    """Each prompt's continuation is the same up to the first step whose two likeliest tokens are
    ``near`` to each other, as part of the range of the logits. That leaves a ``share`` to compare.
    """
    best, *others = _native.isas()
    expected = greedy_on(best, prompts)
    compared = 0
    for isa in others:
        for prompt, steps, wanted in zip(prompts, greedy_on(isa, prompts), expected, strict=True):
            clear = [lead >= near for _, lead in wanted]
            count = clear.index(False) if False in clear else len(clear)
            tokens = [token for token, _ in steps[:count]]
            assert tokens == [token for token, _ in wanted[:count]], f"{isa}, {prompt}"
            compared += count
    assert compared >= share * NEW_TOKENS * len(prompts) * len(others)


needs_another = pytest.mark.skipif(
    len(_native.isas()) < 2, reason="needs a machine with two instruction sets"
)


@needs_another
def test_every_instruction_set_gives_the_same_tokens(converted: Converted) -> None:
    """Random models are the hardest case: a sum that rounds the other way moves an activation to
    the next of its 255 steps, and many logits lie close together."""
    prompts = [(str(converted(m, quant)), m.tokens[:n]) for m, quant in CASES for n in (9, 64)]

    assert_same_tokens(prompts, near=0.01, share=0.2)


@needs_another
@pytest.mark.slow
def test_every_instruction_set_gives_the_same_tokens_of_a_real_model(smollm2: Path) -> None:
    from edgeinfer import tokenizer

    encode = tokenizer.load(smollm2).encode
    texts = ["The capital of France is", "def fibonacci(n):", "Once upon a time"]

    assert_same_tokens([(str(smollm2), encode(text)) for text in texts], near=0.005, share=0.4)
