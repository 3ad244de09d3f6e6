"""Surprise and divergence of tokens, beside float64 sums and values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgeinfer.evaluation.scores import ReferenceRows, distance, surprise

ROWS, VOCAB = 40, 9973  # more than a block of rows


@pytest.fixture(scope="module")
def random():
    return np.random.default_rng(0)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    logits = logits - logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def normal(random, scale: float = 4) -> np.ndarray:
    return (random.standard_normal((ROWS, VOCAB)) * scale).astype(np.float32)


def test_known_values_of_known_distributions():
    fair, loaded = np.log([[0.5, 0.5]]), np.log([[0.25, 0.75]])
    fair, loaded = fair.astype(np.float32), loaded.astype(np.float32)
    second = np.array([1], np.int32)

    def kl(reference: np.ndarray, other: np.ndarray) -> float:
        return float(distance(other, second, ReferenceRows.of(reference, second)).kl[0])

    assert kl(fair, fair) == 0
    assert kl(fair, loaded) == pytest.approx(0.5 * math.log(4 / 3), rel=1e-6)
    assert kl(loaded, fair) == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5), rel=1e-6)
    assert surprise(loaded, second).nll[0] == pytest.approx(-math.log(0.75), rel=1e-6)


def test_a_surprise_is_that_of_float64(random):
    logits, targets = normal(random), random.integers(0, VOCAB, ROWS).astype(np.int32)

    found = surprise(logits, targets)

    expected = -log_softmax(logits)[np.arange(ROWS), targets]
    np.testing.assert_allclose(found.nll, expected, rtol=1e-6)


@pytest.mark.parametrize("noise", [1e-3, 1e-2, 1.0])
def test_a_distance_is_that_of_float64(random, noise):
    reference, targets = normal(random), random.integers(0, VOCAB, ROWS).astype(np.int32)
    logits = reference + normal(random, noise) + 7  # a constant says nothing

    found = distance(logits, targets, ReferenceRows.of(reference, targets))

    p, q = log_softmax(reference), log_softmax(logits)
    expected = (np.exp(p) * (p - q)).sum(axis=1)
    assert expected.mean() > 0.1 * noise**2
    np.testing.assert_allclose(found.kl, expected, rtol=1e-3, atol=5e-8)
    np.testing.assert_allclose(found.nll, -q[np.arange(ROWS), targets], rtol=1e-6)
    np.testing.assert_allclose(found.nll_reference, -p[np.arange(ROWS), targets], rtol=1e-6)
    assert found.same_top.tolist() == (p.argmax(axis=1) == q.argmax(axis=1)).tolist()


def test_a_token_that_is_ruled_out_has_no_part(random):
    reference, targets = normal(random), np.ones(ROWS, np.int32)
    logits = normal(random)
    reference[:, 0] = logits[:, 0] = -1e30

    found = distance(logits, targets, ReferenceRows.of(reference, targets))

    p, q = log_softmax(reference[:, 1:]), log_softmax(logits[:, 1:])
    np.testing.assert_allclose(found.kl, (np.exp(p) * (p - q)).sum(axis=1), rtol=1e-5)
