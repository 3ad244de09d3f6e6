"""A text as llama.cpp's perplexity tool cuts it: chunks of n tokens, the second halves scored.

Every chunk is read by itself, beginning with the model's BOS where it has one, so that a token is
predicted from at least half a chunk; what does not fill a chunk at the end is left out. The same
tokens give the same perplexity as that tool.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeinfer.errors import UsageError

CONTEXT = 512  # tokens a chunk; what published perplexities of GGUF files mostly use
LEAST_CONTEXT = 4  # the shortest that has something to score and something before it


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunks:
    """What is read and what is scored.

    Attributes:
        tokens: int32 (chunks, context), as the model reads them: BOS in the first column.
        first: the first row whose logits are scored. Those of rows ``first`` up to the last but
            one are, each against the token after it.
    """

    tokens: NDArray[np.int32]
    first: int

    @property
    def context(self) -> int:
        """Tokens in a chunk."""
        return int(self.tokens.shape[1])

    @property
    def scored(self) -> int:
        """Rows of logits that are scored, a chunk."""
        return self.context - 1 - self.first

    @property
    def targets(self) -> NDArray[np.int32]:
        """The tokens that are predicted, (chunks, scored)."""
        return self.tokens[:, self.first + 1 :]

    def digest(self) -> str:
        """The SHA-256 of what is read and scored."""
        digest = hashlib.sha256(f"{self.tokens.shape} {self.first} ".encode())
        digest.update(self.tokens.astype("<i4").tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.tokens)


def chunked(
    tokens: Sequence[int] | NDArray[np.int32],
    *,
    context: int = CONTEXT,
    bos: int | None = None,
    limit: int | None = None,
) -> Chunks:
    """Cuts a text into chunks.

    Args:
        tokens: of the whole text, with what the tokenizer puts before it.
        context: tokens a chunk.
        bos: the token that every chunk begins with, in place of its first; None for no such.
        limit: at most so many chunks.

    Raises:
        UsageError: the text does not fill a chunk.
    """
    if context < LEAST_CONTEXT:
        raise UsageError(f"chunks of {context} tokens", hint=f"at least {LEAST_CONTEXT}")
    count = len(tokens) // context
    if count == 0:
        raise UsageError(
            f"the text has {len(tokens)} tokens, less than a chunk of {context}",
            hint="take a longer text, or shorter chunks (-c)",
        )
    if limit is not None:
        count = min(count, limit)
    cut = np.array(tokens[: count * context], np.int32).reshape(count, context)
    if bos is not None:
        cut[:, 0] = bos
    return Chunks(tokens=cut, first=context // 2)
