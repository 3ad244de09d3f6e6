"""Reads a DeviceProfile from the Windows API; through psutil alone on systems without a reader."""

from __future__ import annotations

import mmap
import platform
import sys
from dataclasses import dataclass

from edgeinfer.device import windows_topology
from edgeinfer.device.isa import native_isas
from edgeinfer.device.profile import DeviceProfile

_MACHINES = {"AMD64": "x86_64", "ARM64": "aarch64"}
_HARDWARE = r"HARDWARE\DESCRIPTION\System"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What the system told."""

    os: str
    machine: str
    name: str = ""
    cpu: str = ""
    topology: bytes = b""  # of GetLogicalProcessorInformationEx
    logical_cores: int = 1
    physical_cores: int = 1
    affinity: tuple[int, ...] = ()
    memory_total: int = 0
    memory_available: int = 0
    page_size: int = 4096


def detect() -> DeviceProfile:
    """Returns the profile of this machine."""
    import psutil

    memory = psutil.virtual_memory()
    process = psutil.Process()
    here = sys.platform == "win32"
    logical = psutil.cpu_count() or 1
    vendor, product = (
        _registry("BIOS", name) for name in ("SystemManufacturer", "SystemProductName")
    )
    answers = Answers(
        os=platform.system().lower(),
        machine=platform.machine(),
        name=f"{vendor} {product}".strip(),
        cpu=_registry(r"CentralProcessor\0", "ProcessorNameString") or platform.processor(),
        topology=windows_topology.ask() if here else b"",
        logical_cores=logical,
        physical_cores=psutil.cpu_count(logical=False) or logical,
        affinity=tuple(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else (),
        memory_total=memory.total,
        memory_available=memory.available,
        page_size=mmap.PAGESIZE,
    )
    return profile_of(answers, native_isas() or ())


def profile_of(answers: Answers, isas: tuple[str, ...]) -> DeviceProfile:
    """Returns the profile of a machine that gave these answers."""
    topology = windows_topology.parse(answers.topology)
    allowed = frozenset(answers.affinity or range(answers.logical_cores))
    physical = len(topology.cores) or answers.physical_cores
    fast = len(topology.fast_cores) or physical
    usable = sum(bool(core.cpus & allowed) for core in topology.cores) or physical
    usable_fast = sum(bool(core.cpus & allowed) for core in topology.fast_cores) or usable
    first = min((min(core.cpus) for core in topology.fast_cores if core.cpus), default=0)
    return DeviceProfile(
        name=answers.name,
        os=answers.os,
        machine=_MACHINES.get(answers.machine, answers.machine),
        cpu=answers.cpu.strip(),
        isas=isas,
        logical_cores=answers.logical_cores,
        physical_cores=physical,
        performance_cores=fast,
        usable_cpus=float(len(allowed)),
        cpus=answers.affinity,
        threads=max(1, min(usable_fast, len(allowed))),
        batch_threads=max(1, min(usable, len(allowed))),
        caches=topology.caches_of(first),
        memory_total=answers.memory_total,
        memory_available=answers.memory_available,
        memory_budget=answers.memory_available,
        page_size=answers.page_size,
    )


def _registry(key: str, name: str) -> str:
    """A text of the hardware's description; "" where there is none, or no registry."""
    if sys.platform != "win32":
        return ""
    import winreg

    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, rf"{_HARDWARE}\{key}") as opened:
            return str(winreg.QueryValueEx(opened, name)[0])
    except OSError:
        return ""
