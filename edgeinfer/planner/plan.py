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
    gpu_layers: int | None = None  # layers on a GPU; None: as the backend does by itself
    decode_tokens_per_second: float | None = None  # if the device's bandwidth is known

    @property
    def total_bytes(self) -> int:
        """All resident bytes."""
        return self.weights_bytes + self.kv_bytes + self.scratch_bytes + self.runtime_bytes

    @property
    def fits(self) -> bool:
        """True if the total is within the budget."""
        return self.total_bytes <= self.budget_bytes

    def to_json(self) -> dict[str, object]:
        """Returns the record that ``--json`` prints."""
        return {
            "total_bytes": self.total_bytes,
            "weights_bytes": self.weights_bytes,
            "kv_bytes": self.kv_bytes,
            "scratch_bytes": self.scratch_bytes,
            "runtime_bytes": self.runtime_bytes,
            "budget_bytes": self.budget_bytes,
            "fits": self.fits,
            "context": self.context,
            "backend": self.backend,
            "quant": self.quant,
            "threads": self.threads,
            "batch": self.batch,
            "kv_type": self.kv_type,
            "gpu_layers": self.gpu_layers,
            "decode_tokens_per_second": self.decode_tokens_per_second,
            "notes": list(self.notes),
        }
