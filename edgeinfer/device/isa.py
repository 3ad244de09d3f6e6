"""Which kernel sets a processor runs: asked of the extension, or read from feature flags."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

# Kernel set -> the feature flags of /proc/cpuinfo it needs. Best first per machine.
_REQUIRED_FLAGS: tuple[tuple[str, frozenset[str]], ...] = (
    (
        "avx512",
        frozenset({"avx2", "fma", "f16c"})
        | {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni"},
    ),
    ("avxvnni", frozenset({"avx2", "fma", "f16c", "avx_vnni"})),
    ("avx2", frozenset({"avx2", "fma", "f16c"})),
    ("neon_i8mm", frozenset({"asimd", "asimddp", "i8mm"})),
    ("neon_dotprod", frozenset({"asimd", "asimddp"})),
    ("neon", frozenset({"asimd"})),
    ("scalar", frozenset()),
)


def isas_from_flags(flags: Iterable[str]) -> tuple[str, ...]:
    """Returns the kernel sets that a processor with these cpuinfo flags runs, best first."""
    have = frozenset(flags)
    return tuple(name for name, needed in _REQUIRED_FLAGS if needed <= have)


def isas_below(best: str) -> tuple[str, ...]:
    """Returns the kernel sets of a processor whose best one is known, best first."""
    needed = dict(_REQUIRED_FLAGS)
    return tuple(name for name, flags in _REQUIRED_FLAGS if flags <= needed[best])


def isa_in_use() -> str | None:
    """Returns the kernel set the extension computes with, or None if it is not built."""
    try:
        native = importlib.import_module("edgeinfer._native")
    except ImportError:
        return None
    return str(native.isa())


def native_isas() -> tuple[str, ...] | None:
    """Returns what the extension itself found usable, or None if it is not built."""
    try:
        native = importlib.import_module("edgeinfer._native")
    except ImportError:
        return None
    isas = getattr(native, "isas", None)
    return tuple(isas()) if isas is not None else None
