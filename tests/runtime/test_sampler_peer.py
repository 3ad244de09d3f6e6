"""The sampler's stages against llama.cpp's, on the same logits."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from edgeinfer.runtime.sampler import NativeSampler, accept_all
from edgeinfer.types import SamplingParams

pytestmark = pytest.mark.peer

SIZE = 300
TEXT = [1, 5, 5, 250, 17, 17, 17]
ALL = SamplingParams(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=1)


def chain(params: SamplingParams) -> list[Callable[[object], object]]:
    """llama.cpp's samplers for the parameters, in its order."""
    return [
        lambda llama: llama.llama_sampler_init_penalties(
            SIZE,
            params.repeat_last_n,
            params.repeat_penalty,
            params.frequency_penalty,
            params.presence_penalty,
        ),
        lambda llama: llama.llama_sampler_init_top_k(params.top_k),
        lambda llama: llama.llama_sampler_init_typical(params.typical_p, 0),
        lambda llama: llama.llama_sampler_init_top_p(params.top_p, 0),
        lambda llama: llama.llama_sampler_init_min_p(params.min_p, 0),
        lambda llama: llama.llama_sampler_init_temp(params.temperature),
    ]


def llama_cpp_probabilities(params: SamplingParams, logits: np.ndarray) -> dict[int, float]:
    import llama_cpp

    data = (llama_cpp.llama_token_data * SIZE)(
        *(llama_cpp.llama_token_data(i, float(logit), 0.0) for i, logit in enumerate(logits))
    )
    array = llama_cpp.llama_token_data_array(
        data=ctypes.cast(data, llama_cpp.llama_token_data_p), size=SIZE, selected=-1, sorted=False
    )
    for make in chain(params):
        sampler = make(llama_cpp)
        for token in TEXT:
            llama_cpp.llama_sampler_accept(sampler, token)
        llama_cpp.llama_sampler_apply(sampler, ctypes.byref(array))
        llama_cpp.llama_sampler_free(sampler)
    kept = {array.data[i].id: array.data[i].logit for i in range(array.size)}
    values = np.array(list(kept.values()), np.float64)
    weights = np.exp(values - values.max())
    return dict(zip(kept, weights / weights.sum(), strict=True))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"top_k": 7},
        {"top_p": 0.8},
        {"min_p": 0.05},
        {"typical_p": 0.7},
        {"temperature": 0.4},
        {"repeat_penalty": 1.4},
        {"presence_penalty": 0.7},
        {"frequency_penalty": 0.6},
        {"repeat_penalty": 1.2, "repeat_last_n": 3},
        {"top_k": 40, "top_p": 0.95, "min_p": 0.05, "temperature": 0.8},
        {"top_k": 60, "typical_p": 0.9, "top_p": 0.9, "min_p": 0.02, "repeat_penalty": 1.1},
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", range(5))
def test_the_same_tokens_are_kept_with_the_same_probabilities(change, seed):
    params = replace(ALL, **change)
    logits = (np.random.default_rng(seed).standard_normal(SIZE) * 3).astype(np.float32)
    sampler = NativeSampler(params, SIZE)
    accept_all(sampler, TEXT)

    ours = dict(sampler.probabilities(logits))
    theirs = llama_cpp_probabilities(params, logits)

    assert ours.keys() == theirs.keys()
    assert ours == pytest.approx(theirs, rel=1e-4)
