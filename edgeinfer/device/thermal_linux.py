"""Temperature and throttling on Linux: thermal zones, hwmon, cpufreq, throttle counters.

Source: driver-api/thermal/sysfs-api, admin-guide/pm/cpufreq and hwmon/sysfs-interface of the
kernel's documentation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgeinfer.device import raspberry_pi
from edgeinfer.device.procfs import read_int, read_text
from edgeinfer.device.thermal import ThermalState

# The zones that lie in the processor, by the names that kernels and vendors give them; phones
# have dozens of others. ACPI's own is slow to read and coarse: only if there is no better.
_ZONES = re.compile(
    r"cpu|soc|pkg|package|^(big|little|center)?core|^(big|mid|little)\d?$|^tj", re.IGNORECASE
)
_OTHER_ZONES = re.compile(r"gpu|batt|modem|skin|charg|pmic", re.IGNORECASE)
_LAST_RESORT = "acpitz"
_CHIPS = frozenset({"k10temp", "coretemp", "zenpower"})  # of hwmon; AMD has no thermal zone
_PLAUSIBLE = range(1, 150_000)  # thousandths of a degree; sensors that are off read otherwise

_COOLING = re.compile(r"^(thermal-)?cpufreq|^Processor$|^intel_powerclamp$")
_FULL_CLOCK = 0.97  # a limit this close to the maximum is none


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Processors that change their clock together; in Hz."""

    cpus: str  # as the kernel writes it: "0-3"
    now: int | None
    limit: int  # set by the user, or by cooling
    maximum: int


class LinuxSensors:
    """The files that this machine has, found once."""

    def __init__(self, root: Path) -> None:
        cpus = root / "sys/devices/system/cpu"
        self._firmware = raspberry_pi.firmware(root)
        self._temperatures = _temperatures(root)
        self._cooling = [
            (kind, device / "cur_state")
            for device in sorted((root / "sys/class/thermal").glob("cooling_device[0-9]*"))
            if _COOLING.search(kind := read_text(device / "type").strip())
        ]
        self._limits = [(path / "scaling_max_freq", top) for path, top in _policies(root)]
        # One processor of each package counts for all of it.
        self._counters = {
            read_text(path / "topology/physical_package_id"): counter
            for path in cpus.glob("cpu[0-9]*")
            if (counter := path / "thermal_throttle/package_throttle_count").exists()
        }
        self._count = self._throttle_count()

    def read(self) -> ThermalState:
        """One reading."""
        degrees = [
            value for path in self._temperatures if (value := read_int(path) or 0) in _PLAUSIBLE
        ]
        reasons, past = raspberry_pi.reasons(self._firmware()) if self._firmware else ([], [])
        for kind, path in self._cooling:
            if (read_int(path) or 0) > 0:
                reasons.append(f"cooled by {kind}")
        for path, top in self._limits:
            limit = read_int(path) or top
            if limit < _FULL_CLOCK * top:
                reasons.append(f"clock capped at {limit / 1e6:.2f} of {top / 1e6:.2f} GHz")
        before, self._count = self._count, self._throttle_count()
        if self._count > before:
            reasons.append("the processor throttled itself")
        elif before:
            past.append(f"the processor throttled itself {before} times")
        return ThermalState(
            celsius=max(degrees) / 1000 if degrees else None,
            throttled=bool(reasons),
            reasons=tuple(dict.fromkeys(reasons)),
            past=tuple(past),
        )

    def _throttle_count(self) -> int:
        return sum(read_int(path) or 0 for path in self._counters.values())


def clocks(root: Path = Path("/")) -> tuple[Clock, ...]:
    """The clocks of all processors; asking older kernels on x86 takes 10 ms a clock."""
    return tuple(
        Clock(
            cpus=read_text(path / "related_cpus").strip().replace(" ", ","),
            now=_hertz(read_int(path / "scaling_cur_freq")),
            limit=1000 * (read_int(path / "scaling_max_freq") or top),
            maximum=1000 * top,
        )
        for path, top in _policies(root)
    )


def _hertz(kilohertz: int | None) -> int | None:
    return None if kilohertz is None else 1000 * kilohertz


def _policies(root: Path) -> list[tuple[Path, int]]:
    """The folders of processors that change their clock together, and their maxima in kHz."""
    folders = sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy[0-9]*"))
    return [(path, top) for path in folders if (top := read_int(path / "cpuinfo_max_freq"))]


def _temperatures(root: Path) -> list[Path]:
    found, last_resort = [], []
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone[0-9]*")):
        kind = read_text(zone / "type").strip()
        if kind == _LAST_RESORT:
            last_resort.append(zone / "temp")
        elif _ZONES.search(kind) and not _OTHER_ZONES.search(kind):
            found.append(zone / "temp")
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon[0-9]*")):
        if read_text(chip / "name").strip() in _CHIPS:
            found.append(chip / "temp1_input")
    return found or last_resort
