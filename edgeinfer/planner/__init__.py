"""Predicts, from a file's header alone, what a model takes, and refuses what does not fit."""

from __future__ import annotations

from edgeinfer.planner.plan import MemoryPlan
from edgeinfer.planner.planner import plan_model
from edgeinfer.planner.sizes import format_bytes, parse_bytes

__all__ = ["MemoryPlan", "format_bytes", "parse_bytes", "plan_model"]
