"""What this machine is: its processors, its caches, and the memory that is left."""

from __future__ import annotations

from edgeinfer.device.detect import detect
from edgeinfer.device.known import load as board
from edgeinfer.device.known import names as board_names
from edgeinfer.device.profile import Cache, DeviceProfile

__all__ = ["Cache", "DeviceProfile", "board", "board_names", "detect"]
