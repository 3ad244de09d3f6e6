"""How names and metadata values become the bytes of a GGUF header."""

from __future__ import annotations

import reprlib
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeinfer.errors import UnsupportedError
from edgeinfer.formats.gguf_header import MAX_ARRAY, MAX_STRING
from edgeinfer.formats.metadata import DTYPES, STRUCTS, MetadataValue, ValueType

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
    try:
        if name:
            return encode_string(name, limit)
    except ValueError:
        pass
    raise UnsupportedError(
        f"{reprlib.repr(name)} cannot be a name: not 1 to {limit} bytes of UTF-8"
    )


def encode_value(key: str, value: MetadataValue, type_: ValueType | None) -> bytes:
    """Returns the value's type and bytes; see ``GGUFWriter.add_metadata``.

    Raises:
        UnsupportedError: the type cannot hold the value.
    """
    try:
        if isinstance(value, list | np.ndarray):
            body = _encode_array(value, None if type_ is ValueType.ARRAY else type_)
            return _U32.pack(ValueType.ARRAY) + body
        type_ = _scalar_type(value) if type_ is None else type_
        return _U32.pack(type_) + _encode_scalar(value, type_)
    except (struct.error, OverflowError, ValueError, TypeError) as error:
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
    if type_ is ValueType.STRING or (type_ is None and _are_strings(values)):
        head = _U32.pack(ValueType.STRING) + _U64.pack(len(values))
        return head + b"".join(map(encode_string, values))
    array = _as_array(values, type_)
    if array.ndim != 1:
        raise ValueError(f"an array of {array.ndim} dimensions")
    kind = _ARRAY_TYPES[array.dtype]
    return _U32.pack(kind) + _U64.pack(len(array)) + array.tobytes()


def _are_strings(values: list[Any] | NDArray[Any]) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _as_array(values: list[Any] | NDArray[Any], type_: ValueType | None) -> NDArray[Any]:
    """Returns the values in a dtype of GGUF, or raises if one does not fit it."""
    if isinstance(values, np.ndarray):
        return values.astype(values.dtype.newbyteorder("<") if type_ is None else DTYPES[type_])
    if type_ is None:
        kinds = {_scalar_type(value) for value in values}
        if kinds == {ValueType.BOOL}:
            type_ = ValueType.BOOL
        else:
            type_ = ValueType.F32 if ValueType.F32 in kinds else ValueType.I32
    return np.array(values, DTYPES[type_])
