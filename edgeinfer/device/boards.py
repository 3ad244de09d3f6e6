"""Boards and computers one can plan for without holding them.

``memory_budget`` is what a freshly booted system leaves: the memory less what its usual
operating system takes. ``bandwidth`` is streaming reads over all cores, for estimates of
decode speed.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from edgeinfer.device.profile import DeviceProfile
from edgeinfer.errors import NotFoundError

_GIB = 1 << 30
_NEON = ("neon", "scalar")
_DOTPROD = ("neon_dotprod", *_NEON)
_I8MM = ("neon_i8mm", *_DOTPROD)
_AVX2 = ("avx2", "scalar")


@dataclass(frozen=True, slots=True)
class _Board:
    """One row of the table."""

    name: str
    os: str
    machine: str
    cpu: str
    isas: tuple[str, ...]
    cores: int
    performance_cores: int
    memory_gib: float
    system_gib: float  # taken by firmware, kernel and desktop
    bandwidth_gb: float  # 1e9 bytes a second


# Bandwidths of the Raspberry Pi are published tinymembench / stream copies (Pi 4 LPDDR4-3200
# x32: 4-5 GB/s read; Pi 5 LPDDR4X-4267 x32: 9-12 GB/s). Others are 70 % of the peak of the memory's
# data sheet, a usual share for reads from all cores.
_BOARDS: dict[str, _Board] = {
    "rpi4-4gb": _Board(
        "Raspberry Pi 4 Model B, 4 GB", "linux", "aarch64", "Cortex-A72", _NEON, 4, 4, 3.7, 0.4, 4.5
    ),
    "rpi4-8gb": _Board(
        "Raspberry Pi 4 Model B, 8 GB", "linux", "aarch64", "Cortex-A72", _NEON, 4, 4, 7.6, 0.4, 4.5
    ),
    "rpi5-4gb": _Board(
        "Raspberry Pi 5, 4 GB", "linux", "aarch64", "Cortex-A76", _DOTPROD, 4, 4, 3.9, 0.5, 10.0
    ),
    "rpi5-8gb": _Board(
        "Raspberry Pi 5, 8 GB", "linux", "aarch64", "Cortex-A76", _DOTPROD, 4, 4, 7.9, 0.5, 10.0
    ),
    "rpi5-16gb": _Board(
        "Raspberry Pi 5, 16 GB", "linux", "aarch64", "Cortex-A76", _DOTPROD, 4, 4, 15.8, 0.5, 10.0
    ),
    # RK3588, LPDDR4X-4224 x64: 33.8 GB/s peak.
    "orangepi5-8gb": _Board(
        "Orange Pi 5, 8 GB",
        "linux",
        "aarch64",
        "Cortex-A76 + Cortex-A55",
        _DOTPROD,
        8,
        4,
        7.7,
        0.5,
        20.0,
    ),
    # LPDDR5X-8533 x64: 68.3 GB/s peak.
    "phone-8gb": _Board(
        "Android phone, 8 GB (2024)",
        "linux",
        "aarch64",
        "Cortex-X4 + Cortex-A720 + Cortex-A520",
        _I8MM,
        8,
        6,
        7.3,
        3.5,
        45.0,
    ),
    # LPDDR4X-4266 x128: 68.3 GB/s peak.
    "macbook-m1-8gb": _Board(
        "MacBook Air M1, 8 GB", "macos", "aarch64", "Apple M1", _DOTPROD, 8, 4, 8.0, 3.0, 50.0
    ),
    # DDR4-3200 x128: 51.2 GB/s peak.
    "laptop-8gb": _Board(
        "Laptop, 8 GB DDR4 (2020)", "linux", "x86_64", "4-core AVX2", _AVX2, 4, 4, 7.6, 1.6, 35.0
    ),
    # LPDDR5-6400 x128: 102 GB/s peak.
    "laptop-16gb": _Board(
        "Laptop, 16 GB LPDDR5 (2023)",
        "linux",
        "x86_64",
        "hybrid AVX-VNNI",
        ("avxvnni", *_AVX2),
        12,
        4,
        15.3,
        2.0,
        70.0,
    ),
}


def board_names() -> tuple[str, ...]:
    """Returns the names that ``board`` knows."""
    return tuple(_BOARDS)


def board(name: str) -> DeviceProfile:
    """Returns the profile of a known board.

    Raises:
        NotFoundError: there is no board of this name.
    """
    row = _BOARDS.get(name.lower())
    if row is None:
        near = difflib.get_close_matches(name.lower(), _BOARDS, n=3)
        raise NotFoundError(
            f"no device is called {name!r}",
            hint=f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(_BOARDS)}",
        )
    total = int(row.memory_gib * _GIB)
    free = int((row.memory_gib - row.system_gib) * _GIB)
    return DeviceProfile(
        name=row.name,
        os=row.os,
        machine=row.machine,
        cpu=row.cpu,
        isas=row.isas,
        logical_cores=row.cores,
        physical_cores=row.cores,
        performance_cores=row.performance_cores,
        usable_cpus=float(row.cores),
        threads=row.performance_cores,
        batch_threads=row.cores,
        memory_total=total,
        memory_available=free,
        memory_budget=free,
        page_size=16384 if row.os == "macos" or row.name.startswith("Raspberry Pi 5") else 4096,
        bandwidth=row.bandwidth_gb * 1e9,
    )
