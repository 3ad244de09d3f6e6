"""The memory that this process takes: its peak, and what it has no more use for."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

from edgeinfer.device.procfs import read_kilobytes


def peak_resident_bytes() -> int:
    """Bytes that were resident at most since the process began."""
    if sys.platform.startswith(("linux", "android")):
        # Not getrusage: that counts the process which started this one as well.
        return read_kilobytes(Path("/proc/self/status"))["VmHWM"]
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def trim_heap() -> None:
    """Gives what was freed back to the system; glibc keeps blocks below 32 MiB for itself."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none, and needs none
        if trim is not None:
            trim(0)
