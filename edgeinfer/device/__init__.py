"""What this machine is: its processors, its caches, and the memory that is left."""

from __future__ import annotations

from edgeinfer.device.detect import detect
from edgeinfer.device.profile import Cache, DeviceProfile

__all__ = ["Cache", "DeviceProfile", "detect"]
