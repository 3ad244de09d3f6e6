"""A short text of our own, to tell how far two ways to run a model are apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeinfer.evaluation.chunks import Chunks, chunked

if TYPE_CHECKING:
    from edgeinfer.tokenizer import Tokenizer

MOST = 128  # tokens
TEXT = (
    "The harbour wakes before the town does. Boats come in with the first light, and the men "
    "on the quay count the boxes twice, once for the buyer and once for the tax. By seven the "
    "ice is gone and the gulls have eaten what fell. A woman from the bakery brings bread and "
    "takes two mackerel for it, as her mother did. Nobody writes this down. At noon the ferry "
    "leaves for the island with post, cement and three children who go to school there, and "
    "when the wind turns north it comes back late, with the cement still on board."
)


def sample(tokenizer: Tokenizer, context: int) -> Chunks:
    """The text as one chunk, or as much as the context holds."""
    tokens = tokenizer.encode(TEXT)
    return chunked(tokens, context=min(MOST, context, len(tokens)), limit=1)
