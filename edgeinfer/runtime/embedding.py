"""Texts to vectors: which tokens, in which steps, and what becomes of their hidden states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeinfer.backends.base import Embedder, Engine, Slice
from edgeinfer.backends.groups import groups
from edgeinfer.errors import ContextFullError, UnsupportedError, UsageError
from edgeinfer.runtime.pooling import pool

if TYPE_CHECKING:
    from edgeinfer.runtime.sequence import Sequence as TextSequence
    from edgeinfer.tokenizer import Tokenizer

# Texts that are read together, where the model keeps nothing of them.
MOST_TEXTS = 256


def tokens_of(
    tokenizer: Tokenizer, texts: Sequence[str], *, most: int, truncate: bool
) -> list[list[int]]:
    """Returns the tokens of each text.

    Args:
        tokenizer: the model's.
        texts: any.
        most: tokens that a text may have.
        truncate: leave the end of longer texts out, but not the token that a text ends with.

    Raises:
        UsageError: a text has no tokens.
        ContextFullError: a text has too many, and is not to be cut.
    """
    found = []
    for number, text in enumerate(texts):
        tokens = tokenizer.encode(text)
        if not tokens:
            raise UsageError(f"text {number} has no tokens")
        if len(tokens) > most:
            if not truncate:
                raise ContextFullError(
                    f"text {number} has {len(tokens)} tokens, the context holds {most}",
                    hint="split it, load the model with a longer context if it has one, or "
                    "leave its end out: --truncate, or truncate=True in Python",
                )
            end = tokenizer.frame.after if tokenizer.frame else ()
            tokens = [*tokens[: most - len(end)], *end][-most:]
        found.append(tokens)
    return found


def vectors_of(
    engine: Engine,
    texts: Sequence[Sequence[int]],
    *,
    open_sequence: Callable[[], TextSequence],
    batch: int,
) -> NDArray[np.float32]:
    """Returns a vector of length 1 for each text's tokens, float32 (texts, width).

    Args:
        engine: a model.
        texts: at least one token each, checked.
        open_sequence: opens one in it.
        batch: tokens of a step.

    Raises:
        UnsupportedError: the engine gives no hidden states.
    """
    if not isinstance(engine, Embedder):
        raise UnsupportedError(
            "this backend gives no embeddings", hint="use the backend native (--backend native)"
        )
    config = engine.config
    vectors = np.empty((len(texts), config.width), np.float32)
    number = 0
    most = 1 if config.causal else MOST_TEXTS  # one by one where each keeps a cache of its own
    for which in groups([len(text) for text in texts], most_tokens=batch, most_texts=most):
        group = texts[which]
        states = _states(engine, group, open_sequence, batch)
        first = 0
        for tokens in group:
            vectors[number] = pool(states[first : first + len(tokens)], config.pooling)
            first, number = first + len(tokens), number + 1
    return vectors


def _states(
    engine: Embedder,
    group: Sequence[Sequence[int]],
    open_sequence: Callable[[], TextSequence],
    batch: int,
) -> NDArray[np.float32]:
    """The hidden states of all tokens of texts that are read together."""
    sequences: list[TextSequence] = []
    try:
        for _ in group:
            sequences.append(open_sequence())
        pairs = list(zip(sequences, group, strict=True))
        if len(pairs) > 1 or len(group[0]) <= batch:
            return engine.embed([Slice(s.number, text, len(text)) for s, text in pairs])
        ((sequence, text),) = pairs
        chunks = [text[at : at + batch] for at in range(0, len(text), batch)]
        rows = [engine.embed([Slice(sequence.number, c, len(c))]) for c in chunks]
        return np.concatenate(rows)
    finally:
        for sequence in sequences:
            sequence.close()
