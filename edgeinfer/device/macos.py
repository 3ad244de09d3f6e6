"""Reads a DeviceProfile from sysctl on macOS."""

from __future__ import annotations

import os
import platform
import subprocess

import psutil

from edgeinfer.device.isa import native_isas
from edgeinfer.device.profile import Cache, DeviceProfile


def detect() -> DeviceProfile:
    """Returns the profile of this Mac."""
    values = _sysctl()
    memory = psutil.virtual_memory()
    logical = _int(values, "hw.logicalcpu") or os.cpu_count() or 1
    physical = _int(values, "hw.physicalcpu") or logical
    # perflevel0 is the fast kind on Apple silicon; Intel Macs have one kind and no such key.
    fast = _int(values, "hw.perflevel0.physicalcpu") or physical
    level0 = "hw.perflevel0." if "hw.perflevel0.l1dcachesize" in values else "hw."
    caches = tuple(
        Cache(level=level, kind=kind, bytes=size, shared_by=1)
        for level, kind, key in ((1, "data", "l1dcachesize"), (2, "unified", "l2cachesize"))
        if (size := _int(values, level0 + key))
    )
    return DeviceProfile(
        name=values.get("hw.model", ""),
        os="macos",
        machine="aarch64" if platform.machine() == "arm64" else platform.machine(),
        cpu=values.get("machdep.cpu.brand_string", platform.processor()),
        isas=native_isas() or (),
        logical_cores=logical,
        physical_cores=physical,
        performance_cores=fast,
        usable_cpus=float(logical),
        threads=fast,
        batch_threads=physical,
        caches=caches,
        memory_total=memory.total,
        memory_available=memory.available,
        memory_budget=memory.available,
        page_size=_int(values, "hw.pagesize") or 16384,
    )


def _sysctl() -> dict[str, str]:
    """The hw and machdep.cpu values, by name."""
    command = ["/usr/sbin/sysctl", "hw", "machdep.cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    pairs = [line.partition(": ") for line in done.stdout.splitlines()]
    return {name: value for name, _, value in pairs}


def _int(values: dict[str, str], name: str) -> int:
    text = values.get(name, "")
    return int(text) if text.isdigit() else 0
