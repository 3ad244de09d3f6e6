"""The thermal pressure of macOS, which needs no rights to ask for; temperatures do.

The level is the state of the notification that ``OSThermalNotification.h`` names.
"""

from __future__ import annotations

import ctypes
from typing import Any

from edgeinfer.device.thermal import ThermalState

_NAME = b"com.apple.system.thermalpressurelevel"
_LEVELS = ("nominal", "moderate", "heavy", "trapping", "sleeping")


class MacSensors:
    """Asks notifyd."""

    def __init__(self, library: Any = None) -> None:
        self._library = library or ctypes.CDLL(None)
        self._token = ctypes.c_int()
        self._known = self._library.notify_register_check(_NAME, ctypes.byref(self._token)) == 0

    def read(self) -> ThermalState:
        """One reading."""
        level = ctypes.c_uint64()
        if not self._known or self._library.notify_get_state(self._token, ctypes.byref(level)):
            return ThermalState()
        if level.value == 0:
            return ThermalState()
        name = _LEVELS[min(level.value, len(_LEVELS) - 1)]
        return ThermalState(throttled=True, reasons=(f"thermal pressure is {name}",))
