"""Reads a DeviceProfile through psutil: Windows, and systems without a reader of their own."""

from __future__ import annotations

import mmap
import platform

import psutil

from edgeinfer.device.isa import native_isas
from edgeinfer.device.profile import DeviceProfile

_MACHINES = {"AMD64": "x86_64", "ARM64": "aarch64"}


def detect() -> DeviceProfile:
    """Returns the profile of this machine."""
    memory = psutil.virtual_memory()
    logical = psutil.cpu_count() or 1
    physical = psutil.cpu_count(logical=False) or logical
    process = psutil.Process()
    cpus = tuple(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else ()
    usable = len(cpus) or logical
    machine = platform.machine()
    return DeviceProfile(
        name="",
        os=platform.system().lower(),
        machine=_MACHINES.get(machine, machine),
        cpu=platform.processor(),
        isas=native_isas() or (),
        logical_cores=logical,
        physical_cores=physical,
        performance_cores=physical,
        usable_cpus=float(usable),
        cpus=cpus,
        threads=max(1, min(physical, usable)),
        memory_total=memory.total,
        memory_available=memory.available,
        memory_budget=memory.available,
        page_size=mmap.PAGESIZE,
    )
