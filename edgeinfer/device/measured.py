"""What machines can do at most: measured here and remembered, or published of a known board.

A measurement is found again on the same machine by the same processors; on another machine,
with another affinity mask, CPU quota or kernel set it is not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeinfer.device import ceilings as speeds
from edgeinfer.device.ceilings import Ceilings, CeilingsByThreads
from edgeinfer.device.isa import isa_in_use
from edgeinfer.device.profile import DeviceProfile
from edgeinfer.formats.remembered import Remembered
from edgeinfer.store.home import home

SECONDS = 2.4  # in all
_SHARE = 0.75  # of them measuring; the rest makes the memory that is read
_LEAST = 0.05  # seconds for a number of threads, on a machine where memory is slow to make
_MOST_POINTS = 6
_SMALLEST, _LARGEST = 64 << 20, 512 << 20  # bytes to read
_CACHES = 8  # times the largest cache; of four times as much, 8 % is still found there


def ceilings(device: DeviceProfile) -> CeilingsByThreads | None:
    """The ceilings of a device: those of its profile, else measured here before, else None."""
    return device.ceilings or _recalled(_memory(None).get(_key(device)) or {})


def measure(device: DeviceProfile, path: Path | None = None) -> CeilingsByThreads:
    """Measures this machine and remembers it; takes less than 3 seconds.

    Args:
        device: this machine.
        path: the file to remember it in, beside the speeds of the backends by default.
    """
    counts = tuple(thread_counts(device))
    size = stream_bytes(device)
    began = time.perf_counter()
    points = []
    for index, count in enumerate(counts):
        left = SECONDS - (time.perf_counter() - began)
        seconds = max(_LEAST, _SHARE * left / (len(counts) - index))
        points.append(speeds.measure(count, seconds, size))
    when = time.strftime("measured %Y-%m-%d %H:%M UTC", time.gmtime())
    found = CeilingsByThreads(points=tuple(points), source=when)
    _memory(path).put(_key(device), asdict(found))
    return found


def thread_counts(device: DeviceProfile) -> Iterator[int]:
    """The numbers of threads that are measured: powers of two and what is used by default."""
    most = max(device.threads, device.batch_threads or 1)
    counts = {1, most, device.threads}
    count = 2
    while count < most:
        counts.add(count)
        count *= 2
    # On large machines the small powers say least.
    ordered = sorted(counts)
    yield from [1, *ordered[1:][-(_MOST_POINTS - 1) :]]


def stream_bytes(device: DeviceProfile) -> int:
    """How much to read: many times the largest cache, but not all the memory that is left."""
    largest = max((cache.bytes for cache in device.caches), default=0)
    room = max(16 << 20, device.memory_budget // 4)
    return min(max(_CACHES * largest, _SMALLEST), _LARGEST, room)


def _memory(path: Path | None) -> Remembered:
    return Remembered(path or home() / "ceilings.json")


def _key(device: DeviceProfile) -> str:
    """All that the speeds hang on."""
    return "|".join(
        map(
            str,
            (
                device.name,
                device.os,
                device.cpu,
                isa_in_use() or "",
                device.logical_cores,
                ",".join(map(str, device.cpus)),
                f"{device.usable_cpus:g}",
                round(device.memory_total / (1 << 30)),
            ),
        )
    )


def _recalled(record: dict[str, Any]) -> CeilingsByThreads | None:
    """The ceilings of a record; None if it is none (another version, or damaged)."""
    try:
        points = tuple(Ceilings(**point) for point in record["points"])
        numbers = [number for point in points for number in asdict(point).values()]
        whole = numbers and all(isinstance(n, int | float) and n > 0 for n in numbers)
        return CeilingsByThreads(points=points, source=str(record["source"])) if whole else None
    except (KeyError, TypeError):
        return None
