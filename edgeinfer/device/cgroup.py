"""Limits that control groups (v1 and v2) put on this process.

Every group from the process's own up to the mount counts: a limit of a parent binds too.
The mount table says where the hierarchy is and which part of it is visible, because a
container sees its own group mounted as the root while /proc/self/cgroup still names the
path outside.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgeinfer.device.procfs import read_int, read_text

# Version 1 writes "no limit" as the largest page-aligned 63-bit number.
_UNLIMITED = 1 << 60


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupLimits:
    """The tightest limits over all groups; None is no limit."""

    memory_limit: int | None = None  # bytes
    memory_left: int | None = None  # bytes until the tightest group is full
    cpus: float | None = None  # quota / period


@dataclass(frozen=True, slots=True)
class _Files:
    """What the memory and CPU files of one version are called."""

    limits: tuple[str, ...]
    usage: str
    reclaimable: tuple[str, ...]


_V1 = _Files(
    limits=("memory.limit_in_bytes",),
    usage="memory.usage_in_bytes",
    reclaimable=("total_active_file", "total_inactive_file"),
)
_V2 = _Files(
    limits=("memory.max", "memory.high"),
    usage="memory.current",
    reclaimable=("active_file", "inactive_file"),
)


def read_limits(root: Path = Path("/")) -> CgroupLimits:
    """Returns the limits of the process whose /proc/self lies under ``root``."""
    limit: int | None = None
    left: int | None = None
    cpus: float | None = None
    for files, group in groups(root, "memory"):
        for name in files.limits:
            bound = read_int(group / name)
            if bound is None or bound >= _UNLIMITED:
                continue
            limit = bound if limit is None else min(limit, bound)
            free = max(0, bound - _held_bytes(group, files))
            left = free if left is None else min(left, free)
    for files, group in groups(root, "cpu"):
        quota = _cpu_quota(group, version1=files is _V1)
        if quota is not None:
            cpus = quota if cpus is None else min(cpus, quota)
    return CgroupLimits(memory_limit=limit, memory_left=left, cpus=cpus)


def groups(root: Path, controller: str) -> Iterator[tuple[_Files, Path]]:
    """Yields the folders of the process's group and its parents, the own one first."""
    paths = _own_paths(root)
    for version1, visible, mount in _mounts(root, controller):
        own = paths.get(controller if version1 else "")
        if own is None:
            continue
        # Not below what is mounted (or above the namespace): only the mount is visible.
        inside = own.relative_to(visible) if own.is_relative_to(visible) else PurePosixPath()
        if ".." in inside.parts:
            inside = PurePosixPath()
        base = root / mount.relative_to("/")
        for folder in (inside, *inside.parents):
            yield _V1 if version1 else _V2, base / folder


def _own_paths(root: Path) -> dict[str, PurePosixPath]:
    """Maps each version 1 controller, and "" for version 2, to the process's group."""
    paths = {}
    for line in read_text(root / "proc/self/cgroup").splitlines():
        fields = line.split(":", 2)
        if len(fields) == 3:
            for controller in fields[1].split(","):
                paths[controller] = PurePosixPath(fields[2])
    return paths


def _mounts(root: Path, controller: str) -> Iterator[tuple[bool, PurePosixPath, PurePosixPath]]:
    """Yields (is version 1, the group that is mounted, where) for one controller."""
    for line in read_text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, tail = before.split(), after.split()
        if len(fields) < 5 or len(tail) < 3:
            continue
        version1 = tail[0] == "cgroup"
        if tail[0] == "cgroup2" or (version1 and controller in tail[2].split(",")):
            yield version1, PurePosixPath(fields[3]), PurePosixPath(fields[4])


def _held_bytes(group: Path, files: _Files) -> int:
    """Bytes of the group that reclaim cannot give back.

    The usage counts the page cache, so that a file just downloaded would look like memory
    in use; as the kernel does for MemAvailable, file pages count as free.
    """
    usage = read_int(group / files.usage) or 0
    for line in read_text(group / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name in files.reclaimable and value.strip().isdigit():
            usage -= int(value)
    return max(0, usage)


def _cpu_quota(group: Path, *, version1: bool) -> float | None:
    if version1:
        quota = read_int(group / "cpu.cfs_quota_us")
        period = read_int(group / "cpu.cfs_period_us")
    else:
        fields = read_text(group / "cpu.max").split()
        numbers = [int(f) for f in fields if f.isdigit()]
        quota, period = numbers if len(numbers) == 2 else (None, None)
    return quota / period if quota and period and quota > 0 else None
