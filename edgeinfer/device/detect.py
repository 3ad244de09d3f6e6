"""Reads the profile of the machine this process runs on."""

from __future__ import annotations

import sys

from edgeinfer.device.profile import DeviceProfile


def detect() -> DeviceProfile:
    """Returns the profile of this machine, read afresh.

    The available memory changes from call to call; the rest does not.
    """
    if sys.platform.startswith(("linux", "android")):
        from edgeinfer.device import linux

        return linux.detect()
    if sys.platform == "darwin":
        from edgeinfer.device import macos

        return macos.detect()
    from edgeinfer.device import windows

    return windows.detect()
