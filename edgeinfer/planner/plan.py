"""The answer of the planner: what will be where, and how many bytes it takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """How a model will be run. Bytes are resident bytes at the peak.

    ``total_bytes`` = weights + kv + scratch + runtime (the interpreter and libraries).
    ``budget_bytes`` is what the device, the cgroup and ``--memory`` leave.
    """

    backend: str
    quant: str
    context: int  # tokens
    threads: int
    batch: int  # tokens a prefill chunk
    kv_type: str  # "f16" or "f32"
    weights_bytes: int
    kv_bytes: int
    scratch_bytes: int
    runtime_bytes: int
    budget_bytes: int
    notes: tuple[str, ...] = ()  # what was given up and why

    @property
    def total_bytes(self) -> int:
        """All resident bytes."""
        return self.weights_bytes + self.kv_bytes + self.scratch_bytes + self.runtime_bytes

    @property
    def fits(self) -> bool:
        """True if the total is within the budget."""
        return self.total_bytes <= self.budget_bytes
