"""What this machine can do at most, measured: reading memory, and integer dot products.

No engine decodes faster than memory is read, or reads a prompt faster than the processor
multiplies. Both change from minute to minute on a shared machine, so a speed is held against
ceilings that were taken right beside it.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

STREAM_BYTES = 512 << 20  # larger than any cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """The speeds of ``threads`` threads together."""

    threads: int
    stream_bytes_per_second: float  # reading memory in 2 MB pages, where the system has them
    int8_macs_per_second: float  # 8-bit multiply-adds of operands in registers


def measure(threads: int, seconds: float = 0.4) -> Ceilings:
    """Measures with the kernels in use, about half of ``seconds`` each; medians of the passes."""
    from edgeinfer import _native

    isa = _native.isa()
    return Ceilings(
        threads=threads,
        stream_bytes_per_second=statistics.median(
            _native.stream_read(isa, STREAM_BYTES, threads, seconds / 2)
        ),
        int8_macs_per_second=statistics.median(_native.int8_peak(isa, threads, seconds / 2)),
    )
