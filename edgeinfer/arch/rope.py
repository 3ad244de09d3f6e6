"""Rotary position embeddings: every published way to stretch them, resolved to frequencies.

Plain RoPE (https://arxiv.org/abs/2104.09864) turns pair i of ``dim`` lanes by
``position * base^(-2i/dim)``. Linear scaling (https://arxiv.org/abs/2306.15595) divides all
frequencies; Llama 3 and "proportional" divide each by its own number, as LongRoPE
(https://arxiv.org/abs/2402.13753) does by one of two lists; YaRN
(https://arxiv.org/abs/2309.00071) blends divided and undivided ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from edgeinfer.arch.config import RopeTable

# The divisor of a lane pair that does not turn: far below one turn in any context.
STILL = 1e30


class RopeKind(str, Enum):
    """The ways GGUF can say how RoPE is stretched (values of rope.scaling.type)."""

    NONE = "none"  # with or without a divisor per pair
    LINEAR = "linear"
    YARN = "yarn"
    LONGROPE = "longrope"


NEEDS_ORIGINAL = frozenset({RopeKind.YARN, RopeKind.LONGROPE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """One rotary embedding, before it is resolved for a context.

    Attributes:
        dim: lanes of a head that turn.
        divisors: divides the frequency of each pair, (dim/2,); empty for none. Llama 3.
        original_context: tokens before the stretching, 0 where the kind needs none.
        long_divisors: LongRoPE's divisors for contexts above ``original_context``.
        short_divisors: LongRoPE's divisors up to ``original_context``.
        truncate: YaRN's blend begins and ends at whole pairs.
        attention_factor: multiplies sine and cosine, YaRN's default for it included.
    """

    dim: int
    base: float
    kind: RopeKind = RopeKind.NONE
    factor: float = 1.0
    original_context: int = 0
    attention_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    divisors: tuple[float, ...] = ()
    long_divisors: tuple[float, ...] = ()
    short_divisors: tuple[float, ...] = ()

    def table(self, context: int) -> RopeTable:
        """Resolves the embedding for sequences of up to ``context`` tokens."""
        return RopeTable(
            inverse_frequencies=_RESOLVE[self.kind](self, context),
            magnitude=self.attention_factor,
        )


def plain_frequencies(base: float, dim: int) -> tuple[float, ...]:
    """Returns base^(-2i/dim) for each of the dim/2 pairs."""
    return tuple(base ** (-2.0 * i / dim) for i in range(dim // 2))


def llama3_divisors(
    base: float, dim: int, *, factor: float, low: float, high: float, original_context: int
) -> tuple[float, ...]:
    """Returns Llama 3.1's divisor per pair: none for short waves, ``factor`` for long ones.

    Waves between original_context/high and original_context/low tokens are blended.
    """
    divisors = []
    for frequency in plain_frequencies(base, dim):
        turns = original_context * frequency / (2 * math.pi)  # in the original context
        if turns > high:
            divisors.append(1.0)
        elif turns < low:
            divisors.append(factor)
        else:
            smooth = (turns - low) / (high - low)
            divisors.append(1.0 / ((1 - smooth) / factor + smooth))
    return tuple(divisors)


def yarn_attention_factor(factor: float, mscale: float = 1.0) -> float:
    """Returns YaRN's temperature: 0.1 * mscale * ln(factor) + 1."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def longrope_attention_factor(factor: float, original_context: int) -> float:
    """Returns LongRoPE's temperature: sqrt(1 + ln(factor) / ln(original_context))."""
    return math.sqrt(1 + math.log(factor) / math.log(original_context)) if factor > 1 else 1.0


def _divided(rope: Rope, divisors: tuple[float, ...]) -> tuple[float, ...]:
    plain = plain_frequencies(rope.base, rope.dim)
    if not divisors:
        return plain
    return tuple(f / d if d < STILL else 0.0 for f, d in zip(plain, divisors, strict=True))


def _none(rope: Rope, context: int) -> tuple[float, ...]:
    return _divided(rope, rope.divisors)


def _linear(rope: Rope, context: int) -> tuple[float, ...]:
    return tuple(f / rope.factor for f in _divided(rope, rope.divisors))


def _longrope(rope: Rope, context: int) -> tuple[float, ...]:
    long = context > rope.original_context
    return _divided(rope, rope.long_divisors if long else rope.short_divisors)


def _yarn(rope: Rope, context: int) -> tuple[float, ...]:
    def pair_of(turns: float) -> float:
        """The pair that turns so often within the original context."""
        wave = rope.original_context / (turns * 2 * math.pi)
        return rope.dim * math.log(wave) / (2 * math.log(rope.base))

    first, last = pair_of(rope.beta_fast), pair_of(rope.beta_slow)
    if rope.truncate:
        first, last = math.floor(first), math.ceil(last)
    low, high = max(first, 0), min(last, rope.dim - 1)
    width = max(high - low, 0.001)
    frequencies = []
    for i, frequency in enumerate(plain_frequencies(rope.base, rope.dim)):
        stretched = min(max((i - low) / width, 0.0), 1.0)
        frequencies.append(frequency * ((1 - stretched) + stretched / rope.factor))
    return tuple(frequencies)


_RESOLVE: Mapping[RopeKind, Callable[[Rope, int], tuple[float, ...]]] = {
    RopeKind.NONE: _none,
    RopeKind.LINEAR: _linear,
    RopeKind.YARN: _yarn,
    RopeKind.LONGROPE: _longrope,
}
