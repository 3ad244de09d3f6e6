"""The plan that tests load tiny models with, whatever runs them."""

from __future__ import annotations

from typing import Any

from edgeinfer.planner.plan import MemoryPlan
from support import tiny


def tiny_plan(backend: str, **changes: Any) -> MemoryPlan:
    """A short context, a cache of float32, and no bytes counted."""
    fields: dict[str, Any] = {
        "quant": "f32",
        "context": tiny.CONTEXT,
        "threads": 2,
        "batch": 48,
        "kv_type_k": "f32",
        "kv_type_v": "f32",
        "weights_bytes": 0,
        "kv_bytes": 0,
        "scratch_bytes": 0,
        "runtime_bytes": 0,
        "budget_bytes": 1,
    }
    return MemoryPlan(backend=backend, **fields | changes)
