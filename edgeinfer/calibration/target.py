"""Targets: bytes of a file, bits a weight or bytes of memory, as a limit on the matrices' bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeinfer.device.detect import detect
from edgeinfer.errors import UsageError
from edgeinfer.formats.gguf import GGUFFile
from edgeinfer.planner import plan_model

_PADDING = 31  # bytes, at most, between two tensors of a file


@dataclass(frozen=True, slots=True)
class _Retyped:
    """A tensor as if it were of another type."""

    type: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Mixed:
    """A header as if the tensors were of other types."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, _Retyped]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is wanted; one of them.

    Attributes:
        size: bytes of the file.
        bits: a weight, over all tensors.
        memory: bytes of running it with ``context`` tokens: weights, cache, scratch, runtime.
        context: tokens; None as the planner chooses by itself.

    Raises:
        UsageError: ``bits`` is no number.
    """

    size: int | None = None
    bits: float | None = None
    memory: int | None = None
    context: int | None = None

    def __post_init__(self) -> None:
        if self.bits is not None and not math.isfinite(self.bits):
            raise UsageError(f"{self.bits} bits a weight", hint="a number such as 4.25")

    def limit(self, file: GGUFFile, matrices: Mapping[str, int]) -> int:
        """The bytes that the matrices may take.

        Args:
            file: the model in any types; its other tensors stay as they are.
            matrices: the bytes of each matrix now, in the file or, for ``memory``, in memory.

        Raises:
            UsageError: nothing would be left for the matrices.
        """
        if self.memory is not None:
            given, hint = self.memory, "give more memory, or a shorter context with -c"
            others = planned_bytes(file, {}, self.context) - sum(matrices.values())
        elif self.size is not None:
            given, hint = self.size, "give more room"
            others = file.path.stat().st_size - sum(matrices.values())
            others += _PADDING * len(file.tensors)
        else:
            weights = sum(math.prod(info.shape) for info in file.tensors.values())
            given, hint = int((self.bits or 0) * weights / 8), "give more bits"
            others = sum(t.nbytes for name, t in file.tensors.items() if name not in matrices)
        if given <= others:
            raise UsageError(
                f"{given} bytes are given, all but the matrices takes {others} already", hint=hint
            )
        return given - others


def planned_bytes(file: GGUFFile, types: Mapping[str, str], context: int | None) -> int:
    """What the planner says a model takes with some tensors in other types."""
    tensors = {
        name: _Retyped(types.get(name, info.type), info.shape)
        for name, info in file.tensors.items()
    }
    plan = plan_model(
        _Mixed(file.metadata, tensors), device=detect(), context=context, refuse=False
    )
    return plan.total_bytes
