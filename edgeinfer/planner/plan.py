"""The answer of the planner: what will be where, and how many bytes it takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgeinfer.planner.sizes import format_bytes
from edgeinfer.planner.speed import Speed


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A backend that was not taken, and why."""

    backend: str
    reason: str


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
    kv_type_k: str  # of the cached keys, such as "f16"
    kv_type_v: str  # of the cached values
    weights_bytes: int
    kv_bytes: int
    scratch_bytes: int
    runtime_bytes: int
    budget_bytes: int
    notes: tuple[str, ...] = ()  # what was given up and why
    batch_threads: int | None = None  # for steps of many tokens; None: as many as threads
    gpu_layers: int | None = None  # layers on a GPU; None: as the backend does by itself
    chosen_because: str = ""  # why this backend
    rejected: tuple[Rejection, ...] = ()  # the other backends
    reclaimable_bytes: int = 0  # of the weights: file pages that are not read again
    adapter_bytes: int = 0  # of the weights: what adapters take
    # Predicted, where the device's ceilings are known; of the first tokens, and the last.
    prefill_tokens_per_second: float | None = None
    decode_tokens_per_second: float | None = None
    decode_full_tokens_per_second: float | None = None

    @property
    def total_bytes(self) -> int:
        """All resident bytes at the peak, as the system counts them."""
        return self.weights_bytes + self.kv_bytes + self.scratch_bytes + self.runtime_bytes

    @property
    def needed_bytes(self) -> int:
        """The total without the pages that the system takes back when memory is short."""
        return self.total_bytes - self.reclaimable_bytes

    @property
    def fits(self) -> bool:
        """True if what is needed is within the budget."""
        return self.needed_bytes <= self.budget_bytes

    @property
    def kv_types(self) -> str:
        """The types of cached keys and values, as people name them: "f16", or "q8_0/q4_0"."""
        k, v = self.kv_type_k, self.kv_type_v
        return k if k == v else f"{k}/{v}"

    @property
    def speed(self) -> Speed | None:
        """The predicted speed of the first tokens."""
        prefill, decode = self.prefill_tokens_per_second, self.decode_tokens_per_second
        return Speed(prefill=prefill, decode=decode) if prefill and decode else None

    def explain(self) -> str:
        """What was chosen, what was rejected, and why: a few lines."""
        lines = [
            f"{self.backend} backend: {self.chosen_because or 'asked for'}",
            *(f"not {other.backend}: {other.reason}" for other in self.rejected),
            f"{self.threads} threads{self._more_threads()}, context {self.context}, "
            f"{self.kv_types} cache, "
            f"{format_bytes(self.total_bytes)} of {format_bytes(self.budget_bytes)}: "
            f"weights {format_bytes(self.weights_bytes)}{self._adapters()}, "
            f"cache {format_bytes(self.kv_bytes)}, scratch {format_bytes(self.scratch_bytes)}, "
            f"runtime {format_bytes(self.runtime_bytes)}",
            *self._more(),
            *self.notes,
        ]
        return "\n".join(lines)

    def _more(self) -> Iterator[str]:
        if self.reclaimable_bytes:
            yield (
                f"{format_bytes(self.reclaimable_bytes)} of the weights are pages of the file, "
                "copied and not read again; the system may take them back"
            )
        if self.decode_tokens_per_second and self.decode_full_tokens_per_second:
            yield (
                f"predicted {self.decode_tokens_per_second:.3g} tokens/s, "
                f"{self.decode_full_tokens_per_second:.3g} with a full context, "
                f"prompt {self.prefill_tokens_per_second or 0:.3g} tokens/s"
            )

    def _adapters(self) -> str:
        taken = self.adapter_bytes
        return f" ({format_bytes(taken)} of adapters)" if taken else ""

    def _more_threads(self) -> str:
        if self.batch_threads in (None, self.threads):
            return ""
        return f" ({self.batch_threads} to read prompts)"

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
            "batch_threads": self.batch_threads or self.threads,
            "batch": self.batch,
            "kv_type_k": self.kv_type_k,
            "kv_type_v": self.kv_type_v,
            "kv_types": self.kv_types,
            "gpu_layers": self.gpu_layers,
            "chosen_because": self.chosen_because,
            "rejected": [{"backend": r.backend, "reason": r.reason} for r in self.rejected],
            "reclaimable_bytes": self.reclaimable_bytes,
            "adapter_bytes": self.adapter_bytes,
            "prefill_tokens_per_second": self.prefill_tokens_per_second,
            "decode_tokens_per_second": self.decode_tokens_per_second,
            "decode_full_tokens_per_second": self.decode_full_tokens_per_second,
            "notes": list(self.notes),
        }
