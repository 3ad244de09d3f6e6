"""Kullback-Leibler divergence, beside values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgeinfer.runtime.divergence import divergence, log_probabilities
from support.fake_model import fake_model


def test_it_is_zero_of_itself_and_known_of_known_distributions():
    fair, loaded = np.log([[0.5, 0.5]]), np.log([[0.25, 0.75]])

    assert divergence(fair, fair) == 0
    assert divergence(fair, loaded) == pytest.approx(0.5 * math.log(4 / 3))
    assert divergence(loaded, fair) == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))


def test_the_distributions_of_a_model_sum_to_one():
    with fake_model() as model:
        found = log_probabilities(model)

    assert found.shape == (128, 259)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, rtol=1e-12)
