"""The metadata of a GGUF file: typed values under dotted keys."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from edgeinfer.errors import CorruptFileError

# A numeric or boolean array is a read-only numpy array of its own type, an array of
# strings a list; so a value together with its ValueType says all that the file says.
MetadataValue: TypeAlias = int | float | bool | str | list[str] | NDArray[Any]

T = TypeVar("T", bool, int, float, str, list[str], NDArray[Any])


class ValueType(IntEnum):
    """The type of a metadata value, by its number in the file."""

    U8 = 0
    I8 = 1
    U16 = 2
    I16 = 3
    U32 = 4
    I32 = 5
    F32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    U64 = 10
    I64 = 11
    F64 = 12


# How a value of each fixed-size type lies in the file, in the letters of `struct`.
CODES = {
    ValueType.U8: "B",
    ValueType.I8: "b",
    ValueType.U16: "H",
    ValueType.I16: "h",
    ValueType.U32: "I",
    ValueType.I32: "i",
    ValueType.F32: "f",
    ValueType.BOOL: "?",
    ValueType.U64: "Q",
    ValueType.I64: "q",
    ValueType.F64: "d",
}
STRUCTS = {type_: struct.Struct("<" + code) for type_, code in CODES.items()}
DTYPES = {type_: np.dtype("<" + code) for type_, code in CODES.items()}


class Metadata(Mapping[str, MetadataValue]):
    """The keys of a file in file order, with getters that check the type.

    Attributes:
        types: each key's ValueType; the elements' type of an array is its value's dtype,
            or STRING for a list.
    """

    def __init__(
        self,
        values: Mapping[str, MetadataValue],
        types: Mapping[str, ValueType],
        *,
        path: Path,
    ) -> None:
        self.types = types
        self._values = values
        self._path = path

    def __getitem__(self, key: str) -> MetadataValue:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def require(self, key: str, kind: type[T]) -> T:
        """Returns the value of a key that must be there.

        Args:
            key: the whole key, such as ``llama.block_count``.
            kind: ``int``, ``float`` (an integer will do), ``bool``, ``str``, ``list`` (of
                strings) or ``np.ndarray`` (of numbers or booleans).

        Raises:
            CorruptFileError: the key is missing or of another type.
        """
        if key not in self._values:
            raise CorruptFileError(f"{self._path}: key {key!r} is missing")
        return self._checked(key, kind)

    @overload
    def optional(self, key: str, kind: type[T]) -> T | None: ...
    @overload
    def optional(self, key: str, kind: type[T], default: T) -> T: ...
    def optional(self, key: str, kind: type[T], default: T | None = None) -> T | None:
        """Returns the value of a key, or the default if it is missing.

        Raises:
            CorruptFileError: the key is there, but of another type.
        """
        return self._checked(key, kind) if key in self._values else default

    def without(self, prefix: str) -> Metadata:
        """Returns the metadata less the keys that begin with ``prefix``."""
        kept = [key for key in self._values if not key.startswith(prefix)]
        return Metadata(
            {key: self._values[key] for key in kept},
            {key: self.types[key] for key in kept},
            path=self._path,
        )

    def _checked(self, key: str, kind: type[T]) -> T:
        value: Any = self._values[key]
        if kind is float and type(value) is int:
            value = float(value)
        # Not isinstance: a boolean is no integer here.
        if type(value) is not kind:
            raise CorruptFileError(
                f"{self._path}: key {key!r} is {self._describe(key)}, expected {kind.__name__}"
            )
        found: T = value
        return found

    def _describe(self, key: str) -> str:
        value = self._values[key]
        if isinstance(value, np.ndarray):
            return f"an array of {value.dtype}"
        if isinstance(value, list):
            return "an array of strings"
        return f"{self.types[key].name.lower()} {value!r:.40}"
