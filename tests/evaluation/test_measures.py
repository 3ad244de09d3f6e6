"""The figures of an evaluation and their standard errors, beside ten thousand repetitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgeinfer.evaluation.measures import QUANTILES, Measures, measures, quantile, quantile_error
from edgeinfer.evaluation.scores import Distance, Surprise


def test_a_perplexity_is_the_exponential_of_the_mean():
    found = measures(Surprise(nll=np.log([2.0, 8.0])))

    assert found.perplexity == pytest.approx(4)
    assert found.tokens == 2
    assert found.nll_error == pytest.approx(math.log(4) / 2)  # deviation ln 4 / root 2, over root 2
    assert found.perplexity_error == pytest.approx(4 * found.nll_error)
    assert found.to_json().keys() == {
        "tokens", "perplexity", "perplexity_error", "nll", "nll_error",
    }  # fmt: skip


def sample(random: np.random.Generator, count: int) -> Distance:
    nll = random.exponential(2, count)
    return Distance(
        nll=nll + random.normal(0.01, 0.05, count),
        nll_reference=nll,
        kl=random.exponential(0.01, count),
        same_top=random.random(count) < 0.9,
    )


@pytest.fixture(scope="module")
def repeated() -> list[Measures]:
    random = np.random.default_rng(0)
    return [measures(sample(random, 1000)) for _ in range(2000)]


@pytest.mark.parametrize(
    "name",
    [
        "perplexity",
        "reference_perplexity",
        "perplexity_ratio",
        "kl_mean",
        "kl_median",
        "kl_p99",
        "top1_agreement",
        "p_error_mean",
        "p_error_rms",
    ],
)
def test_a_standard_error_is_how_much_the_figure_varies(name, repeated):
    values = np.array([getattr(found, name) for found in repeated])
    errors = np.array([getattr(found, f"{name}_error") for found in repeated])

    assert errors.mean() == pytest.approx(values.std(), rel=0.15)


def test_what_the_figures_are():
    scores = Distance(
        nll=-np.log([0.5, 0.25, 0.8, 0.1]),
        nll_reference=-np.log([0.6, 0.2, 0.8, 0.2]),
        kl=np.array([0.1, 0.2, 0.0, 0.4]),
        same_top=np.array([True, True, True, False]),
    )

    found = measures(scores)

    assert found.top1_agreement == 0.75
    assert found.kl_max == 0.4
    assert found.kl_median == pytest.approx(0.15)
    assert found.p_error_mean == pytest.approx((-0.1 + 0.05 - 0.1) / 4)
    assert found.p_error_rms == pytest.approx(math.sqrt((0.01 + 0.0025 + 0.01) / 4))
    assert found.perplexity_ratio == pytest.approx(found.perplexity / found.reference_perplexity)
    assert len(found.kl_quantiles) == len(found.p_error_quantiles) == len(QUANTILES)
    assert found.kl_quantiles[-1] == found.kl_max


def test_quantiles_of_one_value_are_that_value():
    assert quantile(np.array([3.0]), 0.99) == 3
    assert quantile_error(np.array([3.0]), 0.99) == 0


def test_a_model_beside_itself_has_no_error():
    scores = Distance(
        nll=np.ones(3), nll_reference=np.ones(3), kl=np.zeros(3), same_top=np.ones(3, np.bool_)
    )

    found = measures(scores)

    assert (found.p_error_rms, found.p_error_rms_error, found.kl_mean_error) == (0, 0, 0)
    assert found.perplexity_ratio == 1
