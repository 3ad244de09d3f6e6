"""One vector of a text from the hidden states of its tokens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeinfer.arch.config import Pooling


def pool(states: NDArray[np.float32], pooling: Pooling) -> NDArray[np.float32]:
    """Returns a vector of length 1, (width,).

    Args:
        states: of each token, (tokens, width), at least one.
        pooling: which of them count.
    """
    if pooling is Pooling.MEAN:
        vector = states.mean(axis=0)
    else:
        vector = states[0 if pooling is Pooling.FIRST else -1]
    return np.asarray(vector / np.linalg.norm(vector), np.float32)
