"""Whether memory is so short that work waits for it: long before anything is killed, all crawls.

Linux tells the share of time in which nothing ran because memory had to be got back first
(pressure stall information), of the machine and of control groups of version 2. Where a group
has no such file, the times it ran into its limit are counted. macOS has a level, Windows the share
of memory in use.

Source: Documentation/accounting/psi.rst and admin-guide/cgroup-v1/memory.rst, cgroup-v2.rst of
the kernel; dispatch/source.h of Darwin.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeinfer.device.cgroup import groups
from edgeinfer.device.procfs import read_int, read_text

SHORT = 0.1  # of the time
MANY_HITS = 100  # between two readings; a few are the page cache's, and cost nothing
FULL = 97  # per cent of Windows' memory

_FULL_AVG10 = re.compile(r"^full avg10=(\d+\.\d+)", re.M)
_HIGH = re.compile(r"^(?:high|max) (\d+)$", re.M)
_MAC_LEVELS = {2: "high", 4: "critical"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
    """One reading."""

    stalled: float | None = None  # share of the last ten seconds in which nothing ran
    reason: str = ""  # why memory is short now; "" if it is not

    @property
    def short(self) -> bool:
        """Whether it is."""
        return bool(self.reason)


class LinuxMeter:
    """The files of the machine whose /proc lies under a root."""

    def __init__(self, root: Path = Path("/")) -> None:
        found = [folder for _, folder in groups(root, "memory")]
        stalls = [folder / "memory.pressure" for folder in found]
        stalls = [path for path in stalls if path.exists()]
        self._stalls = [root / "proc/pressure/memory", *stalls]
        self._limited = [] if stalls else found
        self._hits = self._count()

    def read(self) -> Pressure:
        """What is now, and happened since the last reading."""
        shares = [
            float(match[1]) / 100
            for path in self._stalls
            if (match := _FULL_AVG10.search(read_text(path)))
        ]
        before, self._hits = self._hits, self._count()
        stalled, hits = max(shares, default=None), self._hits - before
        if stalled is not None and stalled >= SHORT:
            return Pressure(stalled=stalled, reason=f"{stalled:.0%} of the time all wait for it")
        if hits >= MANY_HITS:
            return Pressure(
                stalled=stalled, reason=f"its control group ran into the limit {hits} times"
            )
        return Pressure(stalled=stalled)

    def _count(self) -> int:
        """How often the groups ran into their limits since they exist."""
        hits = 0
        for folder in self._limited:
            hits += read_int(folder / "memory.failcnt") or 0
            hits += sum(map(int, _HIGH.findall(read_text(folder / "memory.events"))))
        return hits


class MacMeter:
    """Asks for the level at which macOS asks programs to free memory."""

    def __init__(self, sysctlbyname: Callable[..., int] | None = None) -> None:
        self._sysctl = sysctlbyname or ctypes.CDLL(None).sysctlbyname

    def read(self) -> Pressure:
        """The level now."""
        level = ctypes.c_int()
        size = ctypes.c_size_t(ctypes.sizeof(level))
        failed = self._sysctl(
            b"kern.memorystatus_vm_pressure_level",
            ctypes.byref(level),
            ctypes.byref(size),
            None,
            ctypes.c_size_t(0),
        )
        name = "" if failed else _MAC_LEVELS.get(level.value, "")
        return Pressure(reason=f"the system's memory pressure is {name}" if name else "")


class WindowsMeter:
    """Asks how much memory is in use."""

    def read(self) -> Pressure:
        """The share now."""
        import psutil

        used = psutil.virtual_memory().percent
        return Pressure(reason=f"{used:.0f} % of it are in use" if used >= FULL else "")


def meter() -> LinuxMeter | MacMeter | WindowsMeter:
    """What reads this machine."""
    if sys.platform == "darwin":
        return MacMeter()
    return WindowsMeter() if sys.platform == "win32" else LinuxMeter()
