"""Reads a DeviceProfile from /proc and /sys, below a root that tests can choose."""

from __future__ import annotations

import math
import os
import platform
import re
from pathlib import Path

from edgeinfer.device.cgroup import read_limits
from edgeinfer.device.isa import isas_from_flags, native_isas
from edgeinfer.device.procfs import parse_cpu_list, read_kilobytes, read_text
from edgeinfer.device.profile import Cache, DeviceProfile

# "CPU part" of implementer 0x41 (Arm) -> core; Arm's technical reference manuals, MIDR_EL1.
_ARM_PARTS = {
    0xD03: "Cortex-A53",
    0xD04: "Cortex-A35",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD09: "Cortex-A73",
    0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1",
    0xD0D: "Cortex-A77",
    0xD40: "Neoverse-V1",
    0xD41: "Cortex-A78",
    0xD44: "Cortex-X1",
    0xD46: "Cortex-A510",
    0xD47: "Cortex-A710",
    0xD48: "Cortex-X2",
    0xD49: "Neoverse-N2",
    0xD4D: "Cortex-A715",
    0xD4E: "Cortex-X3",
    0xD4F: "Neoverse-V2",
    0xD80: "Cortex-A520",
    0xD81: "Cortex-A720",
    0xD82: "Cortex-X4",
}

_CPUS = "sys/devices/system/cpu"


def detect(root: Path = Path("/")) -> DeviceProfile:
    """Returns the profile of the machine whose /proc and /sys lie under ``root``."""
    here = root == Path("/")
    cpuinfo = _read_cpuinfo(root)
    online = parse_cpu_list(read_text(root / _CPUS / "online")) or sorted(cpuinfo)
    allowed = _allowed_cpus(root, online)
    fast = _performance_cpus(root, online)
    cgroup = read_limits(root)

    usable = float(len(allowed))
    if cgroup.cpus is not None:
        usable = min(usable, cgroup.cpus)
    fast_allowed = [cpu for cpu in allowed if cpu in fast] or allowed
    # Generating waits for memory, which the fast cores read as fast as all of them do; reading a
    # prompt computes, and there every core helps. A second thread of a core does not.
    threads = max(1, min(len(_cores(root, cpuinfo, fast_allowed)), math.floor(usable)))
    batch_threads = max(1, min(len(_cores(root, cpuinfo, allowed)), math.floor(usable)))

    meminfo = read_kilobytes(root / "proc/meminfo")
    total = meminfo.get("MemTotal", 0)
    # MemAvailable is as old as Linux 3.14; before it, free and cache are the best guess.
    available = meminfo.get("MemAvailable", meminfo.get("MemFree", 0) + meminfo.get("Cached", 0))
    address_limit = _address_limit(root)
    budget = available
    if cgroup.memory_left is not None:
        budget = min(budget, cgroup.memory_left)
    if address_limit is not None:
        mapped = read_kilobytes(root / "proc/self/status").get("VmSize", 0)
        budget = min(budget, max(0, address_limit - mapped))

    flags = _flags(cpuinfo)
    return DeviceProfile(
        name=_board_name(root),
        os="linux",
        machine=platform.machine() if here else _machine(flags),
        cpu=_cpu_brand(cpuinfo, fast),
        isas=(native_isas() if here else None) or isas_from_flags(flags),
        logical_cores=len(online),
        physical_cores=len(_cores(root, cpuinfo, online)),
        performance_cores=len(_cores(root, cpuinfo, sorted(fast))),
        usable_cpus=usable,
        cpus=tuple(allowed),
        threads=threads,
        batch_threads=batch_threads,
        caches=_caches(root, min(fast)) if fast else (),
        memory_total=total,
        memory_available=available,
        memory_limit=cgroup.memory_limit,
        address_limit=address_limit,
        memory_budget=budget,
        page_size=os.sysconf("SC_PAGE_SIZE") if here else 4096,
    )


def _read_cpuinfo(root: Path) -> dict[int, dict[str, str]]:
    """Maps each logical processor to its fields of /proc/cpuinfo.

    Fields of the stanza without a processor number (ARM's "Hardware", "Model") are -1's.
    """
    cpus: dict[int, dict[str, str]] = {}
    for stanza in read_text(root / "proc/cpuinfo").split("\n\n"):
        pairs = [line.partition(":") for line in stanza.splitlines() if ":" in line]
        fields = {name.strip(): value.strip() for name, _, value in pairs}
        number = fields.get("processor", "")
        if fields:
            cpus[int(number) if number.isdigit() else -1] = fields
    return cpus


def _flags(cpuinfo: dict[int, dict[str, str]]) -> frozenset[str]:
    """The features that every processor has."""
    texts = [f.get("flags") or f.get("Features") or "" for n, f in cpuinfo.items() if n >= 0]
    sets = [frozenset(text.split()) for text in texts]
    return frozenset.intersection(*sets) if sets else frozenset()


def _machine(flags: frozenset[str]) -> str:
    return "aarch64" if "asimd" in flags else "x86_64" if "sse2" in flags else "unknown"


def _cpu_brand(cpuinfo: dict[int, dict[str, str]], fast: set[int]) -> str:
    """The brand of the x86 processor, or the kinds of ARM cores, the fast kind first."""
    names: list[str] = []
    for cpu in sorted(n for n in cpuinfo if n >= 0):
        fields = cpuinfo[cpu]
        name = fields.get("model name", "")
        if fields.get("CPU implementer") == "0x41":
            part = int(fields.get("CPU part", "0"), 16)
            name = _ARM_PARTS.get(part, f"Arm part {part:#x}")
        if name and name not in names:
            names.insert(0 if cpu in fast else len(names), name)
    return " + ".join(names)


def _board_name(root: Path) -> str:
    """What the device tree (boards) or the firmware table (computers) calls the machine."""
    model = read_text(root / "proc/device-tree/model").strip("\0\n ")
    if model:
        return model
    dmi = root / "sys/class/dmi/id"
    parts = [read_text(dmi / name).strip() for name in ("sys_vendor", "product_name")]
    return " ".join(part for part in parts if part)


def _allowed_cpus(root: Path, online: list[int]) -> list[int]:
    """The processors that the affinity mask leaves (cpusets included)."""
    match = re.search(r"^Cpus_allowed_list:\s*(\S+)", read_text(root / "proc/self/status"), re.M)
    allowed = parse_cpu_list(match[1]) if match else []
    return [cpu for cpu in online if cpu in set(allowed)] or online


def _performance_cpus(root: Path, online: list[int]) -> set[int]:
    """The processors of the fast kind; all of them if there is one kind.

    Intel's hybrids list theirs in a device of its own. Elsewhere a core is fast if it has at
    least half the capacity that the kernel's scheduler gives the fastest one, or, where it
    knows none, three quarters of the highest clock.
    """
    hybrid = set(parse_cpu_list(read_text(root / "sys/devices/cpu_core/cpus")))
    if hybrid & set(online):
        return hybrid & set(online)
    for name, share in (("cpu_capacity", 0.5), ("cpufreq/cpuinfo_max_freq", 0.75)):
        speeds = {cpu: read_text(root / _CPUS / f"cpu{cpu}" / name).strip() for cpu in online}
        if speeds and all(text.isdigit() for text in speeds.values()):
            top = max(int(text) for text in speeds.values())
            return {cpu for cpu, text in speeds.items() if int(text) >= share * top}
    return set(online)


def _cores(root: Path, cpuinfo: dict[int, dict[str, str]], cpus: list[int]) -> set[object]:
    """The physical cores behind logical processors; hardware threads share one."""
    cores: set[object] = set()
    for cpu in cpus:
        topology = root / _CPUS / f"cpu{cpu}" / "topology"
        siblings = parse_cpu_list(read_text(topology / "thread_siblings_list"))
        fields = cpuinfo.get(cpu, {})
        if siblings:
            cores.add(min(siblings))
        elif "core id" in fields:
            cores.add((fields.get("physical id"), fields["core id"]))
        else:
            cores.add(cpu)
    return cores


def _caches(root: Path, cpu: int) -> tuple[Cache, ...]:
    caches = []
    for folder in sorted((root / _CPUS / f"cpu{cpu}" / "cache").glob("index[0-9]*")):
        level = read_text(folder / "level").strip()
        size = re.fullmatch(r"(\d+)([KM])", read_text(folder / "size").strip())
        if level.isdigit() and size:
            caches.append(
                Cache(
                    level=int(level),
                    kind=read_text(folder / "type").strip().lower(),
                    bytes=int(size[1]) << {"K": 10, "M": 20}[size[2]],
                    shared_by=len(parse_cpu_list(read_text(folder / "shared_cpu_list"))) or 1,
                )
            )
    return tuple(caches)


def _address_limit(root: Path) -> int | None:
    match = re.search(r"^Max address space\s+(\d+)", read_text(root / "proc/self/limits"), re.M)
    return int(match[1]) if match else None
