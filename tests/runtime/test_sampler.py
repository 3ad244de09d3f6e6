"""The native sampler against the numpy reference, and both against what they promise."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeinfer.errors import EdgeInferError, UsageError
from edgeinfer.runtime.sampler import NativeSampler, ReferenceSampler, accept_all, pcg64
from edgeinfer.types import SamplingParams

ALL = SamplingParams(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=7)  # keeps all

# One stage each, then mixtures.
CHAINS = {
    "all": ALL,
    "greedy": replace(ALL, temperature=0),
    "cold": replace(ALL, temperature=0.3),
    "hot": replace(ALL, temperature=3.0),
    "top_k": replace(ALL, top_k=5),
    "top_p": replace(ALL, top_p=0.7),
    "min_p": replace(ALL, min_p=0.1),
    "typical": replace(ALL, typical_p=0.6),
    "repeat": replace(ALL, repeat_penalty=1.3),
    "presence": replace(ALL, presence_penalty=1.5),
    "frequency": replace(ALL, frequency_penalty=-0.7),
    "bias": replace(ALL, logit_bias={3: 4.0, 0: -math.inf, 9: -100}),
    "default": SamplingParams(seed=7),
    "everything": SamplingParams(
        temperature=0.7,
        top_k=30,
        top_p=0.9,
        min_p=0.02,
        typical_p=0.9,
        repeat_penalty=1.1,
        presence_penalty=0.2,
        frequency_penalty=0.3,
        repeat_last_n=8,
        logit_bias={1: 2.0},
        seed=7,
    ),
}
chains = pytest.mark.parametrize("params", CHAINS.values(), ids=CHAINS)
SAMPLERS = pytest.mark.parametrize("make", [NativeSampler, ReferenceSampler])


def some_logits(seed: int, size: int = 200, scale: float = 3.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(size) * scale).astype(np.float32)


@chains
@pytest.mark.parametrize("size", [10, 63, 64, 65, 1000, 50_000])
def test_native_keeps_exactly_what_the_reference_keeps(params, size):
    logits = some_logits(size, size)
    native, reference = NativeSampler(params, size), ReferenceSampler(params, size)
    for token in [0, 5, 5, 5, 17, 40, 3]:
        accept_all(native, [token % size])
        accept_all(reference, [token % size])

    assert native.probabilities(logits) == reference.probabilities(logits)


@settings(max_examples=300, deadline=None)
@given(
    logits=st.lists(
        st.one_of(
            st.floats(-30, 30, width=32), st.sampled_from([0.0, 1.0, -math.inf, 3e38, -3e38])
        ),
        min_size=1,
        max_size=40,
    ),
    temperature=st.sampled_from([0, 1e-6, 0.5, 1.0, 50.0]),
    top_k=st.integers(0, 50),
    top_p=st.floats(0.01, 1),
    min_p=st.floats(0, 1),
    typical_p=st.floats(0.01, 1),
    history=st.lists(st.integers(0, 100), max_size=20),
    last_n=st.integers(-1, 5),
)
def test_native_equals_the_reference_on_any_input(
    logits, temperature, top_k, top_p, min_p, typical_p, history, last_n
):
    params = SamplingParams(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        typical_p=typical_p,
        repeat_penalty=1.2,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        repeat_last_n=last_n,
        seed=3,
        logprobs=3,
    )
    values = np.array(logits, np.float32)
    samplers = [make(params, len(values)) for make in (NativeSampler, ReferenceSampler)]
    for sampler in samplers:
        accept_all(sampler, [token % len(values) for token in history])
    if np.isneginf(values).all():
        for sampler in samplers:
            with pytest.raises(EdgeInferError, match="probability 0"):
                sampler.sample(values)
        return

    native, reference = (sampler.probabilities(values) for sampler in samplers)
    draws = [sampler.sample(values) for sampler in samplers]

    assert native == reference
    assert sum(p for _, p in native) == pytest.approx(1)
    assert draws[0].token == draws[1].token
    assert draws[0].logprob == pytest.approx(draws[1].logprob, rel=1e-6, abs=1e-6)
    assert [t.token for t in draws[0].top] == [t.token for t in draws[1].top]


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([129, 1000, 5000]),
    top_k=st.integers(1, 60),
    biased=st.dictionaries(st.integers(0, 128), st.sampled_from([-math.inf, -1.0, 2.0])),
)
def test_the_best_of_many_are_found_among_equals(seed, size, top_k, biased):
    random = np.random.default_rng(seed)
    few = [-math.inf, -2.0, -2.0, -2.0, -0.0, -0.0, 0.0, 0.0, 1.0]  # the best are equal
    values = random.choice(few, size=size).astype(np.float32)
    values[random.integers(0, size, 5)] = 1.5
    params = SamplingParams(
        temperature=1,
        top_k=top_k,
        top_p=1,
        min_p=0,
        logit_bias=biased,
        repeat_penalty=1.5,
        logprobs=9,
        seed=seed,
    )
    samplers = [make(params, size) for make in (NativeSampler, ReferenceSampler)]
    for sampler in samplers:
        accept_all(sampler, (seed % size, 7, 100))

    native, reference = (sampler.probabilities(values) for sampler in samplers)
    draws = [sampler.sample(values) for sampler in samplers]

    assert native == reference
    assert draws[0].logprob == pytest.approx(draws[1].logprob, rel=1e-6, abs=1e-6)
    assert [t.token for t in draws[0].top] == [t.token for t in draws[1].top]


@chains
def test_draws_follow_the_probabilities(params):
    logits = some_logits(1, 30, 1.5)
    sampler = NativeSampler(params, 30)
    expected = dict(sampler.probabilities(logits))
    draws = 20_000

    counts = np.bincount([sampler.sample(logits).token for _ in range(draws)], minlength=30)

    assert {int(t) for t in np.flatnonzero(counts)} <= set(expected)
    # Pearson's chi-square over the cells that expect five or more; its mean is `cells - 1`
    # and its deviation sqrt(2 (cells - 1)): five deviations fail once in a million seeds.
    cells = {t: p * draws for t, p in expected.items() if p * draws >= 5}
    chi_square = sum((counts[t] - e) ** 2 / e for t, e in cells.items())
    freedom = max(len(cells) - 1, 1)
    assert chi_square < freedom + 5 * math.sqrt(2 * freedom)


@chains
def test_the_same_seed_draws_the_same_tokens_in_both(params):
    native, reference = NativeSampler(params, 200), ReferenceSampler(params, 200)

    for step in range(100):
        logits = some_logits(step)
        token = native.sample(logits).token
        assert token == reference.sample(logits).token
        native.accept(token)
        reference.accept(token)


def test_another_seed_draws_other_tokens():
    logits = some_logits(0)

    def tokens(seed):
        sampler = NativeSampler(replace(ALL, seed=seed), 200)
        return [sampler.sample(logits).token for _ in range(20)]

    assert tokens(1) != tokens(2)
    assert NativeSampler(replace(ALL, seed=None), 200).seed != (
        NativeSampler(replace(ALL, seed=None), 200).seed
    )


def test_neighbouring_seeds_are_independent():
    logits = np.zeros(16, np.float32)
    first = [
        NativeSampler(replace(ALL, seed=seed), 16).sample(logits).token for seed in range(4096)
    ]

    counts = np.bincount(first, minlength=16)

    assert (((counts - 256) ** 2 / 256).sum()) < 15 + 5 * math.sqrt(30)


@SAMPLERS
def test_reset_starts_again(make):
    sampler = make(replace(ALL, repeat_penalty=2.0), 200)
    logits = some_logits(4)

    def run():
        tokens = []
        for _ in range(10):
            tokens.append(sampler.sample(logits).token)
            sampler.accept(tokens[-1])
        return tokens

    first = run()
    sampler.reset()

    assert run() == first


def test_the_stream_is_numpys_pcg64():
    """numpy implements PCG64 too: the draw of a uniform distribution reads its stream."""
    sampler = NativeSampler(replace(ALL, seed=123456789), 1024)
    stream = pcg64(123456789)

    tokens = [sampler.sample(np.zeros(1024, np.float32)).token for _ in range(50)]

    assert tokens == [int(stream.random() * 1024) for _ in range(50)]


# ---- what each stage means, by hand ----------------------------------------------------------


@SAMPLERS
@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_p": 0.49}, {0}),  # the first alone has the mass
        ({"top_p": 0.51}, {0, 1}),
        ({"min_p": 0.25}, {0, 1, 2}),  # at least 0.125
        ({"min_p": 0.35}, {0, 1}),  # at least 0.175
        ({"typical_p": 0.2}, {1}),  # surprises 0.69 1.39 1.90 2.30, entropy 1.21
        ({"typical_p": 0.3}, {0, 1}),
        ({"typical_p": 0.8}, {0, 1, 2}),
    ],
)
def test_truncation_by_hand(make, change, kept):
    logits = np.log(np.array([0.5, 0.25, 0.15, 0.1], np.float32))

    sampler = make(replace(ALL, **change), 4)

    assert {token for token, _ in sampler.probabilities(logits)} == kept


@SAMPLERS
def test_penalties_by_hand(make):
    params = replace(ALL, repeat_penalty=2.0, presence_penalty=0.5, frequency_penalty=0.25)
    sampler = make(params, 4)
    accept_all(sampler, [0, 1, 1])

    got = np.array([p for _, p in sampler.probabilities(np.array([2, -2, 1, 0], np.float32))])

    # token 0: 2/2 - (0.25 + 0.5); token 1: -2*2 - (2*0.25 + 0.5)
    expected = np.exp(np.array([0.25, -5.0, 1.0, 0.0]))
    assert got == pytest.approx(expected / expected.sum())


@SAMPLERS
@pytest.mark.parametrize(("last_n", "penalised"), [(2, {1, 2}), (0, set()), (-1, {0, 1, 2})])
def test_penalties_look_back_on_the_last_n_tokens(make, last_n, penalised):
    sampler = make(replace(ALL, presence_penalty=1.0, repeat_last_n=last_n), 4)
    accept_all(sampler, [0, 1, 2])

    likely = max(p for _, p in sampler.probabilities(np.zeros(4, np.float32)))

    low = {t for t, p in sampler.probabilities(np.zeros(4, np.float32)) if p < likely}
    assert low == penalised


@SAMPLERS
def test_greedy_takes_the_best_and_of_equals_the_first(make):
    sampler = make(replace(ALL, temperature=0), 4)

    assert sampler.sample(np.array([1, 5, 5, 2], np.float32)).token == 1


@SAMPLERS
def test_logprobs_are_the_models_own(make):
    """Neither bias, penalties, truncation nor temperature changes what is reported."""
    params = replace(
        ALL, temperature=0.1, top_k=1, logit_bias={2: 100.0}, presence_penalty=2, logprobs=2
    )
    sampler = make(params, 3)
    sampler.accept(1)
    probabilities = np.array([0.7, 0.2, 0.1])

    draw = sampler.sample(np.log(probabilities).astype(np.float32))

    assert draw.token == 2
    assert draw.logprob == pytest.approx(math.log(0.1), abs=1e-6)
    assert [entry.token for entry in draw.top] == [0, 1]
    assert [math.exp(entry.logprob) for entry in draw.top] == pytest.approx([0.7, 0.2])


# ---- hostile input ---------------------------------------------------------------------------


@SAMPLERS
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_logits_that_are_no_numbers_are_an_error(make, bad, temperature):
    logits = np.zeros(8, np.float32)
    logits[3] = bad

    with pytest.raises(EdgeInferError, match="cannot be sampled"):
        make(replace(ALL, temperature=temperature), 8).sample(logits)


@SAMPLERS
def test_an_impossible_token_is_never_kept(make):
    logits = np.array([-np.inf, 0, -np.inf, 0], np.float32)

    assert make(ALL, 4).probabilities(logits) == [(1, 0.5), (3, 0.5)]


@SAMPLERS
def test_huge_logits_are_fine(make):
    draw = make(replace(ALL, logprobs=2), 3).sample(np.array([3e38, -3e38, 2.9e38], np.float32))

    assert draw.token == 0
    assert draw.logprob == 0


@SAMPLERS
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", "hot"),
        ("temperature", True),
        ("top_k", -1),
        ("top_k", 1.5),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", math.nan),
        ("min_p", -0.1),
        ("min_p", 2),
        ("typical_p", 0),
        ("repeat_penalty", 0),
        ("repeat_penalty", -1),
        ("repeat_last_n", -2),
        ("presence_penalty", math.nan),
        ("frequency_penalty", math.inf),
        ("logit_bias", {10: 1.0}),
        ("logit_bias", {-1: 1.0}),
        ("logit_bias", {"a": 1.0}),
        ("logit_bias", {1: math.nan}),
        ("logit_bias", {1: math.inf}),
        ("logit_bias", {1: "x"}),
        ("seed", -1),
        ("seed", 2**64),
        ("max_tokens", -1),
        ("logprobs", -1),
        ("stop", "text"),
        ("stop", [""]),
    ],
)
def test_a_senseless_parameter_is_named(make, field, value):
    with pytest.raises(UsageError, match=field):
        make(replace(SamplingParams(), **{field: value}), 10)


def test_native_refuses_what_is_not_a_row_of_logits():
    sampler = NativeSampler(ALL, 8)

    with pytest.raises(EdgeInferError, match="7 logits for 8"):
        sampler.sample(np.zeros(7, np.float32))
    with pytest.raises(TypeError):
        sampler.sample(np.zeros(8, np.float64))
    with pytest.raises(IndexError):
        sampler.accept(8)
