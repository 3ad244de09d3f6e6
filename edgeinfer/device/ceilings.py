"""What this machine can do at most, measured: reading memory, and integer dot products.

No engine decodes faster than memory is read, or reads a prompt faster than the processor
multiplies. Both change from minute to minute on a shared machine, so a speed is held against
ceilings that were taken right beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

STREAM_BYTES = 512 << 20  # larger than any cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """The speeds of ``threads`` threads together."""

    threads: int
    stream_bytes_per_second: float  # reading memory in 2 MB pages, where the system has them
    int8_macs_per_second: float  # 8-bit multiply-adds of operands in registers


@dataclass(frozen=True, slots=True, kw_only=True)
class CeilingsByThreads:
    """The ceilings of one machine by number of threads."""

    points: tuple[Ceilings, ...]  # of rising numbers of threads, 1 the first
    source: str  # when it was measured, or who published it

    def at(self, threads: int) -> Ceilings:
        """The ceilings of so many threads: on the line between the nearest points.

        More threads than there are points of are as fast as the most.
        """
        return Ceilings(
            threads=threads,
            stream_bytes_per_second=interpolated(
                threads, [(p.threads, p.stream_bytes_per_second) for p in self.points]
            ),
            int8_macs_per_second=interpolated(
                threads, [(p.threads, p.int8_macs_per_second) for p in self.points]
            ),
        )


def interpolated(x: float, points: Sequence[tuple[float, float]]) -> float:
    """The value at ``x`` of the line through points of rising x; level beyond its ends."""
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return points[-1][1] if x > points[-1][0] else points[0][1]


def measure(threads: int, seconds: float = 0.4, stream_bytes: int = STREAM_BYTES) -> Ceilings:
    """Measures with the kernels in use, about half of ``seconds`` each; medians of the passes."""
    import statistics

    from edgeinfer import _native

    isa = _native.isa()
    return Ceilings(
        threads=threads,
        stream_bytes_per_second=statistics.median(
            _native.stream_read(isa, stream_bytes, threads, seconds / 2)
        ),
        int8_macs_per_second=statistics.median(_native.int8_peak(isa, threads, seconds / 2)),
    )
