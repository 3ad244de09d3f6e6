"""How hot the processor is, and whether heat or the power supply slows it down just now.

Cheap enough to be asked between tokens: what there is to read is found once, and a reading
takes a few files of a few bytes. Where the system tells nothing (Windows, most virtual
machines), nothing is known and nothing is throttled.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class ThermalState:
    """One reading; ``throttled`` is whether there are reasons."""

    celsius: float | None = None  # the hottest sensor of the processor
    throttled: bool = False
    reasons: tuple[str, ...] = ()  # what slows the processor now
    past: tuple[str, ...] = ()  # what did before, where the system remembers


class Sensors(Protocol):
    """What an operating system has to tell."""

    def read(self) -> ThermalState:
        """One reading."""


def read(root: Path = Path("/")) -> ThermalState:
    """Reads this machine, or on Linux the one whose /sys lies under ``root``."""
    return _sensors(root).read()


@cache
def _sensors(root: Path) -> Sensors:
    if sys.platform == "darwin":
        from edgeinfer.device.thermal_macos import MacSensors

        return MacSensors()
    from edgeinfer.device.thermal_linux import LinuxSensors

    return LinuxSensors(root)  # finds nothing on other systems
