"""TVM's own descriptions of the targets, and the passes that schedule for them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import tvm
from tvm.s_tir import dlight

from edgeinfer.backends.mlc.compiler.gpu import PLAIN
from edgeinfer.backends.mlc.compiler.isa import Isa

_ANDROID = {"kind": "llvm", "mtriple": "aarch64-linux-android"}
_METAL = {
    "kind": "metal",
    "max_threads_per_block": 256,
    "max_shared_memory_per_block": 32768,
    "thread_warp_size": 1,
}
_GPUS: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "android": {"kind": "opencl", "max_threads_per_block": 256, "host": _ANDROID},
        "adreno": {
            "kind": "opencl",
            "device": "adreno",
            "max_threads_per_block": 512,
            "host": _ANDROID,
        },
        "macos": {**_METAL, "host": {"kind": "llvm", "mtriple": "arm64-apple-macos"}},
        "iphone": {**_METAL, "host": {"kind": "llvm", "mtriple": "arm64-apple-ios"}},
        "webgpu": {
            "kind": "webgpu",
            "host": {"kind": "llvm", "mtriple": "wasm32-unknown-unknown-wasm"},
        },
    }
)
_TRIPLES = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}
# Longer than seven letters, or TVM takes the name for another kind of text.
SYSTEM_PREFIX = "edgeinfer_"


class _Plain(dlight.gpu.Fallback):  # type: ignore[misc]
    """A thread for each value, for functions that ask for it."""

    def apply(self, func: Any, target: Any, tunable: bool) -> Any:
        """Returns a schedule, or None for other functions."""
        if func.attrs is None or PLAIN not in func.attrs:
            return None
        return super().apply(func, target, tunable)


def cpu_target(isa: Isa) -> Any:
    """TVM's target of an instruction set."""
    return tvm.target.Target(
        {
            "kind": "llvm",
            "mtriple": _TRIPLES[isa.machine],
            "mcpu": isa.cpu,
            "mattr": list(isa.features),
        }
    )


def gpu_target(name: str) -> Any:
    """TVM's target of graphics processors."""
    return tvm.target.Target(_GPUS[name])


def gpu_schedules() -> tuple[Any, ...]:
    """The rules that share loops among a graphics processor's threads."""
    rules = dlight.gpu
    return (
        dlight.ApplyDefaultSchedule(
            _Plain(),
            rules.Matmul(),
            rules.GEMV(),
            rules.Reduction(),
            rules.GeneralReduction(),
            rules.Fallback(),
        ),
    )
