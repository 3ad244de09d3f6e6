"""Rotary settings as MLC LLM reads them.

MLC LLM's Llama looks for "rope_theta" and "rope_scaling" at the top of a configuration and takes
10000 and none where it finds nothing, as in every config.json of transformers 5. So what is
written here comes from the embedding that the model has, not from where a file says it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeinfer.arch.rope import Rope, RopeKind, llama3_divisors, longrope_attention_factor
from edgeinfer.errors import UnsupportedError

# Llama 3.1's: low and high factor, tokens of the original context.
_PUBLISHED = (1.0, 4.0, 8192.0)
_TOLERANCE = 1e-5  # a GGUF has the divisors in float32


def plain_base(rope: Rope, head_dim: int, model_type: str, *, partial: bool = False) -> float:
    """Returns the base of an embedding that nothing stretches.

    Raises:
        UnsupportedError: something does; MLC LLM would pass over it in silence.
    """
    if rope.kind is not RopeKind.NONE or rope.divisors or rope.attention_factor != 1:
        raise UnsupportedError(
            f"MLC LLM's {model_type} has no stretched rotary embedding ({_described(rope)})",
            hint="--to gguf keeps this model as it is",
        )
    _whole_head(rope, head_dim, model_type, partial)
    return rope.base


def llama3_scaling(rope: Rope, head_dim: int, model_type: str) -> dict[str, Any] | None:
    """Returns "rope_scaling" for families with Llama 3's way to stretch, None for none.

    Its numbers are recovered from the divisors, which is all that a GGUF has. The factors and
    the context matter only by their ratios, so that low is 1.

    Raises:
        UnsupportedError: the embedding is stretched in another way.
    """
    _whole_head(rope, head_dim, model_type, False)
    divisors = rope.divisors
    if not divisors or rope.kind is not RopeKind.NONE or rope.attention_factor != 1:
        plain_base(rope, head_dim, model_type)
        return None
    factor = _tidy(max(divisors))
    for low, high, context in (_PUBLISHED, _recovered(rope, factor)):
        found = llama3_divisors(
            rope.base,
            rope.dim,
            factor=factor,
            low=low,
            high=high,
            original_context=context,  # type: ignore[arg-type]
        )
        if np.allclose(found, divisors, rtol=_TOLERANCE, atol=0):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low,
                "high_freq_factor": high,
                "original_max_position_embeddings": int(context) if context % 1 == 0 else context,
            }
    raise UnsupportedError(
        f"MLC LLM's {model_type} stretches rotary embeddings as Llama 3 only; these are not",
        hint="--to gguf keeps this model as it is",
    )


def longrope_scaling(rope: Rope, context: int, model_type: str) -> Mapping[str, Any] | None:
    """Returns "rope_scaling" for Phi-3, None for none.

    Raises:
        UnsupportedError: the embedding is stretched in another way.
    """
    if rope.kind is not RopeKind.LONGROPE:
        plain_base(rope, 0, model_type, partial=True)
        return None
    expected = longrope_attention_factor(context / rope.original_context, rope.original_context)
    if not math.isclose(rope.attention_factor, expected, rel_tol=_TOLERANCE):
        raise UnsupportedError(
            f"LongRoPE with an attention factor of {rope.attention_factor:g}: MLC LLM computes "
            f"{expected:g} from the context"
        )
    return {
        "type": "longrope",
        "long_factor": list(rope.long_divisors),
        "short_factor": list(rope.short_divisors),
    }


def _recovered(rope: Rope, factor: float) -> tuple[float, float, float]:
    """Fits the line that blends short and long waves: smooth = (turns - low) / (high - low)."""
    plain = np.array([rope.base ** (-2.0 * i / rope.dim) for i in range(rope.dim // 2)])
    turns = plain / (2 * math.pi)  # in a context of one token
    smooth = (1 / np.array(rope.divisors) - 1 / factor) / (1 - 1 / factor)
    blended = (smooth > _TOLERANCE) & (smooth < 1 - _TOLERANCE)
    if blended.sum() < 2:
        return _PUBLISHED
    slope, start = np.polyfit(turns[blended], smooth[blended], 1)
    if not (slope > 0 > start):
        return _PUBLISHED
    # With low = 1: start is -1 / (high - 1) and slope context / (high - 1).
    high = _tidy(1 - 1 / start)
    return 1.0, high, _tidy(slope * (high - 1))


def _tidy(value: float) -> float:
    """The whole number that a value is but for rounding."""
    whole = round(value)
    return float(whole) if math.isclose(value, whole, rel_tol=1e-4) else float(value)


def _whole_head(rope: Rope, head_dim: int, model_type: str, partial: bool) -> None:
    if not partial and rope.dim != head_dim:
        raise UnsupportedError(
            f"MLC LLM's {model_type} turns all {head_dim} lanes of a head, not {rope.dim}"
        )


def _described(rope: Rope) -> str:
    return "divisors" if rope.divisors else rope.kind.value
