"""Speed: tokens per second, and the one number that backends are compared by."""

from __future__ import annotations

from dataclasses import dataclass

PROMPT, ANSWER = 256, 128  # tokens of a question and its answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Tokens per second, predicted or measured."""

    prefill: float
    decode: float

    @property
    def turn_seconds(self) -> float:
        """The time of a question and its answer."""
        return PROMPT / self.prefill + ANSWER / self.decode

    def __str__(self) -> str:
        return f"{self.decode:.3g} tokens/s, prompt {self.prefill:.3g} tokens/s"
