"""How names and metadata values become the bytes of a GGUF header."""

from __future__ import annotations

import reprlib
import struct
from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeinfer.errors import UnsupportedError
from edgeinfer.formats.gguf_header import MAX_ARRAY, MAX_STRING
from edgeinfer.formats.metadata import DTYPES, STRUCTS, MetadataValue, ValueType

# What can be written: what is read, and lists of numbers for the callers' convenience.
WritableValue: TypeAlias = MetadataValue | list[bool] | list[int] | list[float]

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_ARRAY_TYPES = {dtype: type_ for type_, dtype in DTYPES.items()}
# The integer types that a bare int may get, the customary ones first.
_INTEGERS = (
    (ValueType.U32, range(1 << 32)),
    (ValueType.I32, range(-(1 << 31), 1 << 31)),
    (ValueType.I64, range(-(1 << 63), 1 << 63)),
    (ValueType.U64, range(1 << 64)),
)


def encode_string(text: str, limit: int = MAX_STRING) -> bytes:
    """Returns length and UTF-8 bytes.

    Raises:
        ValueError: too long, or half of a surrogate pair, which UTF-8 cannot say.
    """
    octets = text.encode()
    if len(octets) > limit:
        raise ValueError(f"{len(octets)} bytes, at most {limit} can be")
    return _U64.pack(len(octets)) + octets


def encode_name(name: str, limit: int) -> bytes:
    """Returns the bytes of a key's or tensor's name.

    Raises:
        UnsupportedError: the name is empty, too long, or not Unicode.
    """
    with suppress(ValueError):
        if name:
            return encode_string(name, limit)
    raise UnsupportedError(
        f"{reprlib.repr(name)} cannot be a name: not 1 to {limit} bytes of UTF-8"
    )


def encode_value(key: str, value: WritableValue, type_: ValueType | None) -> bytes:
    """Returns the value's type and bytes; see ``GGUFWriter.add_metadata``.

    Raises:
        UnsupportedError: the type cannot hold the value.
    """
    try:
        if isinstance(value, list | np.ndarray):
            body = _encode_array(value, type_)
            return _U32.pack(ValueType.ARRAY) + body
        type_ = _scalar_type(value) if type_ is None else type_
        return _U32.pack(type_) + _encode_scalar(value, type_)
    except (struct.error, KeyError, OverflowError, TypeError, ValueError) as error:
        raise UnsupportedError(
            f"key {key!r}: {reprlib.repr(value)} cannot be written: {error}"
        ) from error


def _scalar_type(value: int | float | bool | str) -> ValueType:
    if isinstance(value, str):
        return ValueType.STRING
    if isinstance(value, bool | np.bool_):
        return ValueType.BOOL
    if isinstance(value, float | np.floating):
        return ValueType.F32
    for type_, values in _INTEGERS:
        if int(value) in values:
            return type_
    raise OverflowError("no integer type is wide enough")


def _encode_scalar(value: int | float | bool | str, type_: ValueType) -> bytes:
    if type_ is ValueType.STRING:
        if not isinstance(value, str):
            raise TypeError("not a string")
        return encode_string(value)
    if type_ is ValueType.BOOL and not isinstance(value, bool | np.bool_):
        raise TypeError("not a boolean")  # struct would take anything
    return STRUCTS[type_].pack(value)


def _encode_array(values: list[Any] | NDArray[Any], type_: ValueType | None) -> bytes:
    if len(values) > MAX_ARRAY:
        raise ValueError(f"{len(values)} elements, at most {MAX_ARRAY} can be")
    if isinstance(values, list) and (type_ is ValueType.STRING or _are_strings(values, type_)):
        head = _U32.pack(ValueType.STRING) + _U64.pack(len(values))
        return head + b"".join(map(encode_string, values))
    given = np.asarray(values)
    if given.ndim != 1 or given.dtype.kind not in "biuf":
        raise TypeError("neither numbers, nor booleans, nor strings")
    dtype = _array_dtype(values) if type_ in (None, ValueType.ARRAY) else DTYPES[type_]
    with np.errstate(over="ignore", invalid="ignore"):
        array = given.astype(dtype)
    exact = array == given if dtype.kind in "biu" else np.isfinite(array) | ~np.isfinite(given)
    if not np.all(exact):
        raise OverflowError(f"not all of it fits {dtype}")
    return _U32.pack(_ARRAY_TYPES[dtype]) + _U64.pack(len(array)) + array.tobytes()


def _are_strings(values: list[Any], type_: ValueType | None) -> bool:
    """True if a list is to be written as strings; an empty one read from a file was that."""
    if not values and type_ is None:
        raise ValueError("the type of an empty list must be given")
    return type_ in (None, ValueType.ARRAY) and all(isinstance(value, str) for value in values)


def _array_dtype(values: list[Any] | NDArray[Any]) -> np.dtype[Any]:
    if isinstance(values, np.ndarray):
        return values.dtype.newbyteorder("<")
    kinds = {_scalar_type(value) for value in values}
    if kinds == {ValueType.BOOL}:
        return DTYPES[ValueType.BOOL]
    return DTYPES[ValueType.F32 if ValueType.F32 in kinds else ValueType.I32]
