"""What every engine refuses, for those that have no library to refuse it for them."""

from __future__ import annotations

from collections.abc import Sequence

from edgeinfer.arch.config import ModelConfig
from edgeinfer.backends.base import Slice
from edgeinfer.errors import ContextFullError, UnsupportedError


def require_causal(config: ModelConfig) -> None:
    """Refuses to write with a model that only reads.

    Raises:
        UnsupportedError: the model sees texts as a whole and has no logits.
    """
    if not config.causal:
        raise UnsupportedError(
            f"{config.architecture} models read a text as a whole and cannot continue one",
            hint="edgeinfer embed, or embed() in Python, gives vectors of texts",
        )


def check_batch(
    batch: Sequence[Slice], lengths: Sequence[int], *, vocabulary: int, context: int
) -> None:
    """Finds all that can be wrong with a step before any sequence is changed.

    Args:
        batch: the slices.
        lengths: of each slice's sequence, in tokens.
        vocabulary: tokens there are.
        context: tokens a sequence may have.

    Raises:
        ContextFullError: a slice does not fit.
        ValueError: the batch makes no sense.
    """
    seen = set()
    for part, length in zip(batch, lengths, strict=True):
        count = len(part.tokens)
        if part.sequence in seen:
            raise ValueError(f"sequence {part.sequence} occurs twice in a batch")
        seen.add(part.sequence)
        if not count:
            raise ValueError("a slice has no tokens")
        if not 0 <= part.wants_logits <= count:
            raise ValueError(f"outputs of {part.wants_logits} tokens wanted of a slice of {count}")
        bad = next((token for token in part.tokens if not 0 <= token < vocabulary), None)
        if bad is not None:
            raise ValueError(f"token {bad} is outside the vocabulary of {vocabulary}")
        if length + count > context:
            raise ContextFullError(f"{length} + {count} tokens do not fit a context of {context}")


def check_trim(length: int, wanted: int) -> None:
    """Checks that a sequence of ``length`` tokens can be cut to ``wanted``.

    Raises:
        ValueError: it is shorter.
    """
    if not 0 <= wanted <= length:
        raise ValueError(f"cannot trim a sequence of {length} tokens to {wanted}")
