"""Reads a DeviceProfile from sysctl on macOS."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator, Mapping

from edgeinfer.device.isa import isas_from_flags, native_isas
from edgeinfer.device.profile import Cache, DeviceProfile

# What sysctl calls the features that kernels need -> what /proc/cpuinfo calls them.
_FEATURES = {
    "hw.optional.AdvSIMD": "asimd",
    "hw.optional.neon": "asimd",
    "hw.optional.arm.FEAT_DotProd": "asimddp",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.avx2_0": "avx2",
    "hw.optional.fma": "fma",
    "hw.optional.f16c": "f16c",
}


def detect() -> DeviceProfile:
    """Returns the profile of this Mac."""
    import psutil

    memory = psutil.virtual_memory()
    return profile_of(
        _sysctl(), machine=platform.machine(), available=memory.available, isas=native_isas()
    )


def profile_of(
    values: Mapping[str, str], *, machine: str, available: int, isas: tuple[str, ...] | None = None
) -> DeviceProfile:
    """Returns the profile of a Mac whose sysctl says ``values``.

    Args:
        values: of ``hw`` and ``machdep.cpu``, by name.
        machine: "arm64" or "x86_64".
        available: bytes of memory.
        isas: kernel sets that the extension found usable; None to tell them by the values.
    """
    logical = _int(values, "hw.logicalcpu") or os.cpu_count() or 1
    physical = _int(values, "hw.physicalcpu") or logical
    # perflevel0 is the fast kind on Apple silicon; Intel Macs have one kind and no such key.
    fast = _int(values, "hw.perflevel0.physicalcpu") or physical
    flags = {flag for name, flag in _FEATURES.items() if values.get(name) == "1"}
    return DeviceProfile(
        name=values.get("hw.model", ""),
        os="macos",
        machine="aarch64" if machine == "arm64" else machine,
        cpu=values.get("machdep.cpu.brand_string", ""),
        isas=isas or isas_from_flags(flags),
        logical_cores=logical,
        physical_cores=physical,
        performance_cores=fast,
        usable_cpus=float(logical),  # macOS has no affinity masks
        threads=fast,
        batch_threads=physical,
        caches=tuple(_caches(values)),
        memory_total=_int(values, "hw.memsize"),
        memory_available=available,
        memory_budget=available,
        page_size=_int(values, "hw.pagesize") or 16384,
    )


def _caches(values: Mapping[str, str]) -> Iterator[Cache]:
    """The caches of a fast core; the keys without a level are those of the slow ones."""
    level0 = "hw.perflevel0." if "hw.perflevel0.l1dcachesize" in values else "hw."
    share = _int(values, "hw.perflevel0.cpusperl2") or 1
    for level, kind, key, shared_by in (
        (1, "data", level0 + "l1dcachesize", 1),
        (1, "instruction", level0 + "l1icachesize", 1),
        (2, "unified", level0 + "l2cachesize", share),
        (3, "unified", "hw.l3cachesize", _int(values, "hw.logicalcpu") or 1),
    ):
        if size := _int(values, key):
            yield Cache(level=level, kind=kind, bytes=size, shared_by=shared_by)


def _sysctl() -> dict[str, str]:
    command = ["/usr/sbin/sysctl", "hw", "machdep.cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    return parse(done.stdout)


def parse(text: str) -> dict[str, str]:
    """The values that sysctl prints, by name."""
    pairs = [line.partition(": ") for line in text.splitlines()]
    return {name.strip(): value.strip() for name, separator, value in pairs if separator}


def _int(values: Mapping[str, str], name: str) -> int:
    text = values.get(name, "")
    return int(text) if text.isdigit() else 0
