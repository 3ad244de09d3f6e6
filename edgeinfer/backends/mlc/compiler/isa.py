"""Instruction sets that libraries are compiled for: LLVM's flags, and the int8 product of each.

They have the names of the native engine's kernels, so that a machine that can run those can run
a library. A product multiplies four unsigned codes a lane with four signed activations and adds
them to the lane's sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tvm.script.ir_builder import tirx as T

from edgeinfer.backends.mlc.compiler.kernels.lanes import splat

# (sums int32xN, codes int32xN, activations int32xN) -> sums
Dot = Callable[[Any, Any, Any], Any]
_BYTES = 4  # of a lane


@dataclass(frozen=True, slots=True, kw_only=True)
class Isa:
    """An instruction set.

    Attributes:
        machine: the processors it is of.
        cpu: LLVM's name of the oldest that has it.
        features: LLVM's, beyond those of ``cpu``.
        lanes: int32 in a register.
        tokens: that a tile of a matrix is multiplied with at once, as registers allow.
        dot: the product of codes and activations.
    """

    name: str
    machine: str
    cpu: str
    features: tuple[str, ...] = ()
    lanes: int
    tokens: int
    dot: Dot


def _vpdpbusd(width: int) -> Dot:
    def dot(sums: Any, codes: Any, activations: Any) -> Any:
        lanes = width // 32
        return T.call_llvm_pure_intrin(
            f"int32x{lanes}",
            f"llvm.x86.avx512.vpdpbusd.{width}",
            sums,
            _as_bytes(codes, lanes),
            _as_bytes(activations, lanes),
        )

    return dot


def _maddubs(sums: Any, codes: Any, activations: Any) -> Any:
    # Codes are of four bits: two products, at most 2 * 15 * 127, never saturate.
    pairs = T.call_llvm_pure_intrin(
        "int16x16", "llvm.x86.avx2.pmadd.ub.sw", _as_bytes(codes, 8), _as_bytes(activations, 8)
    )
    ones = splat(T.int16(1), 16)
    return sums + T.call_llvm_pure_intrin("int32x8", "llvm.x86.avx2.pmadd.wd", pairs, ones)


def _sdot(sums: Any, codes: Any, activations: Any) -> Any:
    return T.call_llvm_pure_intrin(
        "int32x4",
        "llvm.aarch64.neon.sdot.v4i32.v16i8",
        sums,
        _as_bytes(codes, 4),
        _as_bytes(activations, 4),
    )


def _plain(sums: Any, codes: Any, activations: Any) -> Any:
    """Byte by byte in 32 bits, for processors without such an instruction."""
    for byte in range(_BYTES):
        up, down = splat(T.int32(24 - 8 * byte), 4), splat(T.int32(24), 4)
        sums = sums + ((codes << up) >> down) * ((activations << up) >> down)
    return sums


def _as_bytes(words: Any, lanes: int) -> Any:
    return T.reinterpret(f"int8x{_BYTES * lanes}", words)


_ALL = (
    Isa(
        name="avx512",
        machine="x86_64",
        cpu="x86-64-v4",
        features=("+avx512vnni",),
        lanes=16,
        tokens=8,
        dot=_vpdpbusd(512),
    ),
    Isa(
        name="avxvnni",
        machine="x86_64",
        cpu="x86-64-v3",
        features=("+avxvnni",),
        lanes=8,
        tokens=4,
        dot=_vpdpbusd(256),
    ),
    Isa(name="avx2", machine="x86_64", cpu="x86-64-v3", lanes=8, tokens=4, dot=_maddubs),
    Isa(
        name="neon_dotprod",
        machine="aarch64",
        cpu="generic",
        features=("+neon", "+dotprod"),
        lanes=4,
        tokens=8,
        dot=_sdot,
    ),
    Isa(
        name="neon",
        machine="aarch64",
        cpu="generic",
        features=("+neon",),
        lanes=4,
        tokens=4,
        dot=_plain,
    ),
)
ISAS: Mapping[str, Isa] = MappingProxyType({isa.name: isa for isa in _ALL})
