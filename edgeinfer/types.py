"""Small frozen records that travel between the layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

# A chat message as chat templates see it: "role", "content", and optional extra keys
# ("tool_calls", "reasoning_content", ...).
Message = Mapping[str, Any]


class FinishReason(str, Enum):
    """Why a generation ended."""

    STOP = "stop"  # an end-of-turn token or a stop string
    LENGTH = "length"  # max_tokens reached
    CONTEXT = "context"  # the context is full
    CANCELLED = "cancelled"  # the caller stopped it


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How the next token is chosen. The defaults sample plainly; temperature 0 is greedy.

    Order of the stages: logit bias, penalties, temperature-independent truncation
    (top-k, typical, top-p, min-p), temperature, draw.
    """

    temperature: float = 0.8
    top_k: int = 40  # 0 keeps all
    top_p: float = 0.95  # 1 keeps all
    min_p: float = 0.05  # 0 keeps all
    typical_p: float = 1.0  # 1 keeps all
    repeat_penalty: float = 1.0  # 1 changes nothing
    repeat_last_n: int = 64  # tokens the penalties look back on; -1 is the whole context
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None  # None draws a fresh one
    max_tokens: int | None = None  # None: until the context is full
    stop: Sequence[str] = ()
    logprobs: int = 0  # alternatives reported per token


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """A token with the natural logarithm of its probability."""

    token: int
    logprob: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """What a generation cost.

    ``cached_tokens`` of the prompt were already in the KV cache; ``prompt_tokens``
    counts the whole prompt, so prompt_tokens - cached_tokens were prefilled. The first
    new token comes of the prefill; each of ``decode_steps`` gave one more, or the end.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    new_tokens: int = 0
    decode_steps: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    step_seconds: float = 0.0  # the median of the decode steps, without sampling and reading
    drafted_tokens: int = 0  # guessed ahead
    accepted_tokens: int = 0  # of these, right
    speedup: float = 1.0  # by guessing: times as fast as a token a step, as measured

    @property
    def prefill_tokens_per_second(self) -> float:
        """Prefilled prompt tokens over the time they took; 0 without a prefill."""
        done = self.prompt_tokens - self.cached_tokens
        return done / self.prefill_seconds if self.prefill_seconds > 0 else 0.0

    @property
    def decode_tokens_per_second(self) -> float:
        """Decode steps over the time they took; 0 without one."""
        return self.decode_steps / self.decode_seconds if self.decode_seconds > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEvent:
    """One step of a stream: whole characters, never half of one.

    ``text`` may be empty (a token that only begins a character). The last event of a
    stream has a ``finish_reason`` and the ``timings``.
    """

    text: str
    token: int | None = None
    logprob: float | None = None
    top_logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    timings: Timings | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A finished generation."""

    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    timings: Timings
    logprobs: tuple[TokenLogprob, ...] = ()
