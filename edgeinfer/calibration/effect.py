"""The effect of other weights on what a model says: Kullback-Leibler divergence, also when tiny.

With d the change of a token's logits and p what was expected, KL is ln E_p[e^d] - E_p[d],
which still tells 1e-7 nats in float32, where the difference of two log-probabilities has long lost
them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgeinfer.backends.base import Slice
from edgeinfer.calibration.opened import Opened
from edgeinfer.evaluation.chunks import Chunks

STEP = 128  # tokens whose logits are held at a time, beside the reference's


class Effect:
    """Compares the engine as it is now with the engine as it was when this was made."""

    def __init__(self, opened: Opened, chunks: Chunks) -> None:
        self._opened, self._chunks = opened, chunks
        self._reference = list(self._logits())

    def divergence(self) -> float:
        """The mean over all tokens of KL(then || now), nats."""
        found = [
            divergences(then, now)
            for then, now in zip(self._reference, self._logits(), strict=True)
        ]
        return float(np.concatenate(found).mean())

    def _logits(self) -> Iterator[NDArray[np.float32]]:
        engine = self._opened.engine
        for chunk in self._chunks.tokens:
            sequence = engine.open()
            try:
                for first in range(0, len(chunk), STEP):
                    ids = chunk[first : first + STEP].tolist()
                    yield engine.step([Slice(sequence, ids, len(ids))])
            finally:
                engine.close(sequence)


def divergences(then: NDArray[np.float32], now: NDArray[np.float32]) -> NDArray[np.float64]:
    """KL(then || now) of each row of logits, nats."""
    p = np.exp(then - then.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    d = now - then
    d -= np.einsum("tv,tv->t", p, d)[:, None]  # a constant changes nothing but the rounding
    mean = np.einsum("tv,tv->t", p, d).astype(np.float64)
    np.expm1(d, out=d)
    kl: NDArray[np.float64] = np.log1p(np.einsum("tv,tv->t", p, d).astype(np.float64)) - mean
    return np.maximum(kl, 0)
