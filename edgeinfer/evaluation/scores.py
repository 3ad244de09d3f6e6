"""What is measured of one token: its surprise, and the distance to a reference's distribution."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]  # (rows, vocabulary)
Tokens = NDArray[np.int32]  # (rows,)
Vector = NDArray[np.float64]  # (rows,)

_BLOCK = 1 << 18  # logits worked on at a time: the arrays of a block fit a core's cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Surprise:
    """How unlikely the model held each token, -ln p in nats, (tokens,)."""

    nll: Vector


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance(Surprise):
    """The model beside a reference, of each token, (tokens,).

    P is the reference's distribution of the token, Q the model's.
    """

    nll_reference: Vector
    kl: Vector  # KL(P || Q), nats
    same_top: NDArray[np.bool_]  # whether both hold the same token for the likeliest


@dataclass(frozen=True, slots=True)
class ReferenceRows:
    """The reference's distributions, a row a token.

    Attributes:
        logits: float32 (rows, vocabulary); a row's largest is 0.
        best: the likeliest token, (rows,).
        nll: of the token that came, (rows,).
    """

    logits: Logits
    best: Tokens
    nll: NDArray[np.float32]

    @classmethod
    def of(cls, logits: Logits, targets: Tokens) -> ReferenceRows:
        """The rows as a model gave them, (rows, vocabulary)."""
        shifted, log_sum, best = normalised(logits)
        nll = (log_sum - at(shifted, targets)).astype(np.float32)
        return cls(shifted, best.astype(np.int32), nll)


def surprise(logits: Logits, targets: Tokens) -> Surprise:
    """Scores logits (rows, vocabulary) against the tokens that came, (rows,)."""
    nll = np.empty(len(logits))
    for rows in _blocks(logits):
        shifted, log_sum, _ = normalised(logits[rows])
        nll[rows] = log_sum - at(shifted, targets[rows])
    return Surprise(nll=nll)


def distance(logits: Logits, targets: Tokens, reference: ReferenceRows) -> Distance:
    """Scores logits beside the reference's, both (rows, vocabulary)."""
    nll, kl = np.empty(len(logits)), np.empty(len(logits))
    same_top = np.empty(len(logits), np.bool_)
    for rows in _blocks(logits):
        q, log_sum_q, best = normalised(logits[rows])
        nll[rows] = log_sum_q - at(q, targets[rows])
        same_top[rows] = best == reference.best[rows]
        p = reference.logits[rows]
        weights = np.exp(p)
        total = weights.sum(axis=1, dtype=np.float64)
        # ln P - ln Q = (p - q) - (ln sum e^p - ln sum e^q): of two logits that are nearly equal
        # the difference is exact, of their logarithms it would not be.
        weights *= p - q
        mean_difference = weights.sum(axis=1, dtype=np.float64) / total
        kl[rows] = mean_difference - (np.log(total) - log_sum_q)
    # Rounding can make the divergence of all but equal distributions negative.
    kl = np.maximum(kl, 0)
    return Distance(
        nll=nll, nll_reference=reference.nll.astype(np.float64), kl=kl, same_top=same_top
    )


def normalised(logits: Logits) -> tuple[Logits, Vector, NDArray[np.intp]]:
    """Rows less their largest, ln of the sum of the exponentials of that, and the best token."""
    best = logits.argmax(axis=1)
    shifted = logits - np.take_along_axis(logits, best[:, None], axis=1)
    return shifted, np.log(np.exp(shifted).sum(axis=1, dtype=np.float64)), best


def at(rows: Logits, tokens: Tokens) -> Vector:
    """The number of one token in each row."""
    return np.take_along_axis(rows, tokens[:, None], axis=1)[:, 0].astype(np.float64)


def _blocks(logits: Logits) -> Iterator[slice]:
    size = max(1, _BLOCK // logits.shape[1])
    for start in range(0, len(logits), size):
        yield slice(start, start + size)
