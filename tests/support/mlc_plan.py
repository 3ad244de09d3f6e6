"""The plan that tests of backend mlc load tiny models with."""

from __future__ import annotations

from edgeinfer.planner.plan import MemoryPlan
from support import tiny

PLAN = MemoryPlan(
    backend="mlc",
    quant="f32",
    context=tiny.CONTEXT,
    threads=2,
    batch=48,
    kv_type_k="f32",
    kv_type_v="f32",
    weights_bytes=0,
    kv_bytes=0,
    scratch_bytes=0,
    runtime_bytes=0,
    budget_bytes=1,
)
