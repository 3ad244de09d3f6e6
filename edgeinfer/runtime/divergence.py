"""How far one way to run a model is from another: Kullback-Leibler divergence of next tokens.

The mean, over the tokens of a text, of KL(P || Q) in nats, where P is the reference's
distribution of the next token and Q the other's; llama.cpp's perplexity tool reports the
same of whole files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from edgeinfer.runtime.model import Model

LogProbabilities = NDArray[np.float64]  # (n_tokens, n_vocab)

MOST = 128  # tokens
TEXT = (
    "The harbour wakes before the town does. Boats come in with the first light, and the men "
    "on the quay count the boxes twice, once for the buyer and once for the tax. By seven the "
    "ice is gone and the gulls have eaten what fell. A woman from the bakery brings bread and "
    "takes two mackerel for it, as her mother did. Nobody writes this down. At noon the ferry "
    "leaves for the island with post, cement and three children who go to school there, and "
    "when the wind turns north it comes back late, with the cement still on board."
)


def log_probabilities(model: Model) -> LogProbabilities:
    """What a model expects after each token of the text."""
    tokens = model.tokenizer.encode(TEXT)[: min(MOST, model.plan.context)]
    logits = model.logits(tokens).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    normalised: LogProbabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return normalised


def divergence(reference: LogProbabilities, other: LogProbabilities) -> float:
    """The mean KL divergence, in nats a token."""
    return float((np.exp(reference) * (reference - other)).sum(axis=1).mean())
