"""Vectors in TVM's tensor IR: loading, storing, and the functions that it has no vectors of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

LANES = 16
_FLAGS = {"tirx.noalias": True, "tirx.is_scheduled": True, "op_pattern": 8}  # 8: not to be fused
LOWEST = -1e30  # a score that is not seen

# exp(x) = 2^n * p(x - n ln 2): ln 2 in two parts, and the series, whose error is below a bit.
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
_SERIES = tuple(1 / math.factorial(power) for power in range(7, -1, -1))
_EXP_RANGE = (-87.0, 88.0)  # float32's


def kernel(body: Callable[[], None]) -> Any:
    """Returns the function whose arguments and statements ``body`` makes."""
    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_name("main")
        T.func_attr(_FLAGS)
        body()
    return builder.get()


def argument(name: str, shape: Sequence[Any], dtype: str = "float32") -> Any:
    """Declares a tensor that the kernel is given; outputs come last."""
    return T.arg(name, T.buffer(tuple(shape), dtype))


def count(name: str, fixed: int | None) -> Any:
    """A dimension: the number itself, or one that the arguments tell."""
    return T.int64(fixed) if fixed is not None else T.int64()


def each(extent: Any, fixed: int | None = None) -> Any:
    """A loop over rows: shared among threads unless there is but one."""
    return T.serial(1) if fixed == 1 else T.parallel(extent)


def local(shape: Sequence[int], dtype: str = "float32") -> Any:
    """A few values of a task's own, in registers where indices are constants."""
    return T.alloc_buffer(tuple(shape), dtype, scope="local")


def load(buffer: Any, *index: Any, lanes: int = LANES) -> Any:
    """Lanes that lie side by side, from an index on."""
    *rest, last = index
    return buffer[(*rest, T.ramp(last, 1, lanes))] if lanes > 1 else buffer[(*rest, last)]


def store(buffer: Any, value: Any, *index: Any, lanes: int = LANES, stride: int = 1) -> None:
    """Stores lanes from an index on."""
    *rest, last = index
    T.buffer_store(buffer, value, [*rest, T.ramp(last, stride, lanes) if lanes > 1 else last])


def splat(value: Any, lanes: int = LANES) -> Any:
    """The same in all lanes."""
    return T.broadcast(value, lanes) if lanes > 1 else value


def number(value: float, lanes: int = LANES) -> Any:
    """A float constant in all lanes."""
    return splat(T.float32(value), lanes)


def floats(value: Any, lanes: int = LANES, *, dtype: str) -> Any:
    """Widens lanes of a float type; bfloat16 comes as its bits."""
    if dtype == "float32":
        return value
    many = f"x{lanes}" if lanes > 1 else ""
    if dtype == "uint16":
        bits = T.Cast(f"uint32{many}", value) << splat(T.uint32(16), lanes)
        return T.reinterpret(f"float32{many}", bits)
    return T.Cast(f"float32{many}", value)


def total(vector: Any) -> Any:
    """The sum of lanes of a local buffer of ``LANES``, pairwise."""
    parts = [vector[i] for i in range(LANES)]
    while len(parts) > 1:
        parts = [a + b for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def largest(value: Any, lanes: int = LANES) -> Any:
    """The largest of float lanes."""
    return T.call_llvm_pure_intrin("float32", f"llvm.vector.reduce.fmax.v{lanes}f32", value)


def summed(value: Any, lanes: int) -> Any:
    """The sum of int32 lanes."""
    return T.call_llvm_pure_intrin("int32", f"llvm.vector.reduce.add.v{lanes}i32", value)


def maximum(a: Any, b: Any) -> Any:
    """Lane by lane."""
    return tirx.Max(a, b)


def exp(x: Any, lanes: int = LANES) -> Any:
    """e^x lane by lane, to a bit or two; what is out of float32's range ends there."""
    low, high = (number(value, lanes) for value in _EXP_RANGE)
    x = tirx.Min(tirx.Max(x, low), high)
    turns = T.nearbyint(x * number(1 / math.log(2), lanes))
    rest = x - turns * number(_LN2_HIGH, lanes) - turns * number(_LN2_LOW, lanes)
    series = number(_SERIES[0], lanes)
    for coefficient in _SERIES[1:]:
        series = series * rest + number(coefficient, lanes)
    many = f"x{lanes}" if lanes > 1 else ""
    exponent = (T.Cast(f"int32{many}", turns) + splat(T.int32(127), lanes)) << splat(
        T.int32(23), lanes
    )
    return series * T.reinterpret(f"float32{many}", exponent)


def sigmoid(x: Any, lanes: int = LANES) -> Any:
    """1 / (1 + e^-x) lane by lane."""
    one = number(1.0, lanes)
    return one / (one + exp(number(0.0, lanes) - x, lanes))


def tanh(x: Any, lanes: int = LANES) -> Any:
    """The hyperbolic tangent lane by lane, from the logistic function."""
    two = number(2.0, lanes)
    return two * sigmoid(two * x, lanes) - number(1.0, lanes)


def widest(*extents: int) -> int:
    """The most lanes, up to ``LANES``, that divide all extents."""
    return math.gcd(LANES, *extents)
