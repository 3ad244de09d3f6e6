"""Reads a DeviceProfile from /proc and /sys, below a root that tests can choose."""

from __future__ import annotations

import math
import platform
import re
from pathlib import Path

from edgeinfer.device.cgroup import read_limits
from edgeinfer.device.isa import isas_from_flags, native_isas
from edgeinfer.device.procfs import parse_cpu_list, read_int, read_kilobytes, read_text
from edgeinfer.device.profile import Cache, DeviceProfile

# "CPU implementer" and "CPU part" -> core: Arm's technical reference manuals (MIDR_EL1), and the
# list that arch/arm64/include/asm/cputype.h of the kernel keeps of other makers.
_ARM = 0x41
_MAKERS = {0x48: "HiSilicon", 0x4E: "NVIDIA", 0x51: "Qualcomm", 0x53: "Samsung", 0x61: "Apple"}
_PARTS = {
    (_ARM, 0xD03): "Cortex-A53",
    (_ARM, 0xD04): "Cortex-A35",
    (_ARM, 0xD05): "Cortex-A55",
    (_ARM, 0xD07): "Cortex-A57",
    (_ARM, 0xD08): "Cortex-A72",
    (_ARM, 0xD09): "Cortex-A73",
    (_ARM, 0xD0A): "Cortex-A75",
    (_ARM, 0xD0B): "Cortex-A76",
    (_ARM, 0xD0C): "Neoverse-N1",
    (_ARM, 0xD0D): "Cortex-A77",
    (_ARM, 0xD40): "Neoverse-V1",
    (_ARM, 0xD41): "Cortex-A78",
    (_ARM, 0xD44): "Cortex-X1",
    (_ARM, 0xD46): "Cortex-A510",
    (_ARM, 0xD47): "Cortex-A710",
    (_ARM, 0xD48): "Cortex-X2",
    (_ARM, 0xD49): "Neoverse-N2",
    (_ARM, 0xD4D): "Cortex-A715",
    (_ARM, 0xD4E): "Cortex-X3",
    (_ARM, 0xD4F): "Neoverse-V2",
    (_ARM, 0xD80): "Cortex-A520",
    (_ARM, 0xD81): "Cortex-A720",
    (_ARM, 0xD82): "Cortex-X4",
    (_ARM, 0xD42): "Cortex-A78AE",
    (_ARM, 0xD4B): "Cortex-A78C",
    (_ARM, 0xD4C): "Cortex-X1C",
    (_ARM, 0xD85): "Cortex-X925",
    (_ARM, 0xD87): "Cortex-A725",
    (0x48, 0xD01): "TaiShan v110",
    (0x51, 0x001): "Oryon",
    (0x61, 0x022): "Apple Icestorm",
    (0x61, 0x023): "Apple Firestorm",
    (0x61, 0x024): "Apple Icestorm",
    (0x61, 0x025): "Apple Firestorm",
    (0x61, 0x032): "Apple Blizzard",
    (0x61, 0x033): "Apple Avalanche",
}

_MIDR = ("implementer", "part")

_CPUS = "sys/devices/system/cpu"
# What tells fast cores from slow ones, best first, and the share of the fastest one's figure that
# makes a core fast.
_SPEEDS = (
    ("cpu_capacity", 0.5),
    ("acpi_cppc/highest_perf", 0.75),
    ("cpufreq/cpuinfo_max_freq", 0.75),
)
_AT_PAGESZ = 6  # of getauxval(3)


def detect(root: Path = Path("/")) -> DeviceProfile:
    """Returns the profile of the machine whose /proc and /sys lie under ``root``."""
    here = root == Path("/")
    cpuinfo = _read_cpuinfo(root)
    online = parse_cpu_list(read_text(root / _CPUS / "online")) or sorted(cpuinfo)
    allowed = _allowed_cpus(root, online)
    fast = _performance_cpus(root, cpuinfo, online)
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
        page_size=_page_size(root),
        large_page_size=_large_page_size(root),
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
        if "CPU implementer" in fields:
            maker, part = (int(fields.get(f"CPU {what}", "0"), 16) for what in _MIDR)
            name = _PARTS.get((maker, part), f"{_MAKERS.get(maker, 'Arm')} part {part:#x}")
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


def _performance_cpus(
    root: Path, cpuinfo: dict[int, dict[str, str]], online: list[int]
) -> set[int]:
    """The processors of the fast kind; all of them if there is one kind.

    Intel's hybrids list theirs in a device of its own, where performance events may be seen.
    Elsewhere a core is fast if it has at least half the capacity that the kernel's scheduler
    gives the fastest one, or three quarters of the performance that the firmware tells, or of the
    clock. A figure that is the same for all says nothing: some firmwares tell one for all. AMD's
    tell which cores of one kind were made best.
    """
    hybrid = set(parse_cpu_list(read_text(root / "sys/devices/cpu_core/cpus")))
    if hybrid & set(online):
        return hybrid & set(online)
    amd = any(fields.get("vendor_id") == "AuthenticAMD" for fields in cpuinfo.values())
    for name, share in _SPEEDS:
        if amd and name.startswith("acpi_cppc"):
            continue
        speeds = {cpu: read_int(root / _CPUS / f"cpu{cpu}" / name) or 0 for cpu in online}
        top = max(speeds.values(), default=0)
        fast = {cpu for cpu, speed in speeds.items() if speed >= share * top}
        if min(speeds.values(), default=0) > 0 and len(fast) < len(online):
            return fast
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


def _page_size(root: Path) -> int:
    """From what the kernel tells each process as it starts: 4096, 16384 on a Raspberry Pi 5."""
    try:
        words = memoryview((root / "proc/self/auxv").read_bytes()).cast("L")
    except (OSError, TypeError):
        return 4096
    return dict(zip(words[::2], words[1::2], strict=False)).get(_AT_PAGESZ, 4096)


def _large_page_size(root: Path) -> int | None:
    """Of the pages that memory is given in without asking for files of them."""
    folder = root / "sys/kernel/mm/transparent_hugepage"
    if "[never]" in read_text(folder / "enabled"):
        return None
    return read_int(folder / "hpage_pmd_size")


def _address_limit(root: Path) -> int | None:
    match = re.search(r"^Max address space\s+(\d+)", read_text(root / "proc/self/limits"), re.M)
    return int(match[1]) if match else None
