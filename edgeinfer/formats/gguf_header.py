"""The header of a GGUF file, read as if an enemy had written it.

Every count, length and offset is checked against the bytes that are left before anything
is allocated or skipped, so that time and memory stay proportional to the file's size. The
integers are Python's: no sum or product can wrap. What is accepted is at most what ggml
accepts: little-endian versions 2 and 3, and tensor data in the order of the table, each
tensor padded to the alignment, with nothing before, between or after.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from edgeinfer.errors import CorruptFileError, UnsupportedError
from edgeinfer.formats import ggml_types
from edgeinfer.formats.foreign import recognise
from edgeinfer.formats.metadata import DTYPES, STRUCTS, Metadata, MetadataValue, ValueType

MAGIC = b"GGUF"
ALIGNMENT_KEY = "general.alignment"
DEFAULT_ALIGNMENT = 32  # bytes
ALIGNMENTS = tuple(1 << power for power in range(3, 21))  # bytes

MAX_ENTRIES = 1 << 16  # keys, and tensors; the largest models have about 3,000
MAX_KEY = (1 << 16) - 1  # bytes, as the specification says
MAX_TENSOR_NAME = 63  # bytes; ggml keeps names in 64 with a final zero
MAX_STRING = 16 << 20  # bytes
MAX_ARRAY = 1 << 24  # elements
MAX_DIMENSIONS = 4

_MIN_KEY_ENTRY = 8 + 1 + 4 + 1  # bytes: length, name, type, value
_MIN_TENSOR_ENTRY = 8 + 1 + 4 + 8 + 4 + 8  # bytes: length, name, rank, one size, type, offset

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class ShortPrefixError(CorruptFileError):
    """The header goes on after the bytes that were given.

    Attributes:
        need_bytes: give at least so many; it may take more than one round.
    """

    def __init__(self, message: str, *, need_bytes: int) -> None:
        super().__init__(message)
        self.need_bytes = need_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """Where a tensor is and what its bytes mean.

    Attributes:
        name: as in the file, such as ``blk.0.attn_q.weight``.
        type: ggml's name in lower case, such as ``q4_0``.
        ggml_id: ggml's number of the type.
        shape: in numpy's order, (rows, cols) for a matrix; ggml writes it reversed.
        offset: of the first byte, from the start of the file.
        nbytes: without padding.
        path: the file, which matters for a model split into several.
    """

    name: str
    type: str
    ggml_id: int
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """All of a GGUF file but the tensors' data.

    Attributes:
        nbytes: the header's own size, without the padding after it.
        data_end: the end of the last tensor, from the start of the file.
    """

    version: int
    alignment: int
    metadata: Metadata
    tensors: Mapping[str, TensorInfo]  # in file order
    nbytes: int
    data_end: int


def parse_header(
    buffer: bytes | memoryview | mmap,
    *,
    path: Path = Path("<buffer>"),
    file_size: int | None = None,
) -> Header:
    """Reads the header from the first bytes of a file.

    Args:
        buffer: the file, or its beginning.
        path: the name that errors and the tensors carry.
        file_size: bytes of the whole file if the buffer is only its beginning.

    Raises:
        ShortPrefixError: the buffer is only a beginning and ends before the header does.
        CorruptFileError: not a GGUF file, or one that contradicts itself.
        UnsupportedError: a GGUF file of a kind that cannot be read.
    """
    cursor = _Cursor(buffer, path, len(buffer) if file_size is None else file_size)
    version = _read_preamble(cursor)
    tensor_count = cursor.count("tensors", _MIN_TENSOR_ENTRY, MAX_ENTRIES)
    key_count = cursor.count("keys", _MIN_KEY_ENTRY, MAX_ENTRIES)
    metadata = _read_metadata(cursor, key_count)
    alignment = _alignment(cursor, metadata)
    entries = _read_tensor_table(cursor, tensor_count)
    tensors, data_end = _place(cursor, entries, alignment)
    return Header(
        version=version,
        alignment=alignment,
        metadata=metadata,
        tensors=MappingProxyType(tensors),
        nbytes=cursor.offset,
        data_end=data_end,
    )


def padded(size: int, alignment: int) -> int:
    """Rounds a size up to a multiple of the alignment."""
    return -(-size // alignment) * alignment


class _Cursor:
    """A position in the header that never moves past its end.

    ``place`` says in words what is being read, for the errors.
    """

    def __init__(self, buffer: bytes | memoryview | mmap, path: Path, file_size: int) -> None:
        self.buffer = buffer
        self.path = path
        self.file_size = file_size
        self.offset = 0
        self.place = "header"

    def corrupt(
        self, problem: str, *, at: int | None = None, hint: str | None = None
    ) -> CorruptFileError:
        at = self.offset if at is None else at
        return CorruptFileError(f"{self.path}: {self.place}, byte {at}: {problem}", hint=hint)

    def skip(self, size: int) -> int:
        """Moves on by ``size`` bytes and returns where they begin."""
        start = self.offset
        end = start + size
        if end > len(self.buffer):
            raise self.too_short(end)
        self.offset = end
        return start

    def too_short(self, end: int) -> CorruptFileError:
        if end <= self.file_size:
            return ShortPrefixError(
                f"{self.path}: the header needs at least {end} bytes, {len(self.buffer)} given",
                need_bytes=end,
            )
        return self.truncated(end)

    def truncated(self, end: int, *, at: int | None = None) -> CorruptFileError:
        return self.corrupt(
            f"the file is truncated or damaged: {end} bytes needed, {self.file_size} there",
            at=at,
            hint="the download may be incomplete: fetch the file again",
        )

    def u32(self) -> int:
        value: int = _U32.unpack_from(self.buffer, self.skip(4))[0]
        return value

    def u64(self) -> int:
        value: int = _U64.unpack_from(self.buffer, self.skip(8))[0]
        return value

    def count(self, what: str, entry_bytes: int, limit: int) -> int:
        """Reads a count of entries of at least ``entry_bytes`` each."""
        start = self.offset
        count = self.u64()
        if count > limit:
            raise self.corrupt(f"{count} {what}, at most {limit} can be", at=start)
        if count * entry_bytes > self.file_size - self.offset:
            raise self.corrupt(
                f"{count} {what} do not fit the {self.file_size - self.offset} bytes left",
                at=start,
            )
        return count

    def string(self, limit: int) -> str:
        start = self.offset
        length = self.u64()
        if length > limit:
            raise self.corrupt(f"a string of {length} bytes, at most {limit} can be", at=start)
        begin = self.skip(length)
        try:
            return str(self.buffer[begin : self.offset], "utf-8")
        except UnicodeDecodeError as error:
            raise self.corrupt(f"invalid UTF-8 ({error.reason})", at=begin + error.start) from None

    def name(self, limit: int) -> str:
        start = self.offset
        name = self.string(limit)
        if not name:
            raise self.corrupt("empty name", at=start)
        return name

    def strings(self, count: int) -> list[str]:
        """Reads ``count`` strings; a vocabulary has hundreds of thousands."""
        from edgeinfer import _native

        read = _native.read_strings(self.buffer, self.offset, count, MAX_STRING)
        if read is None:  # one of them is not as it should be
            return self._strings_one_by_one(count)
        strings, self.offset = read
        return strings

    def _strings_one_by_one(self, count: int) -> list[str]:
        """As ``strings``; says which string is wrong, and how."""
        buffer, offset, end = self.buffer, self.offset, len(self.buffer)
        length_at = _U64.unpack_from
        found: list[str] = []
        append = found.append
        try:
            for _ in range(count):
                begin = offset + 8
                if begin > end:
                    raise self.too_short(begin)
                (length,) = length_at(buffer, offset)
                if length > MAX_STRING:
                    self.offset = offset
                    raise self.corrupt(f"string {len(found)} has {length} bytes")
                offset = begin + length
                if offset > end:
                    self.offset = begin
                    raise self.too_short(offset)
                append(str(buffer[begin:offset], "utf-8"))
        except UnicodeDecodeError as error:
            raise self.corrupt(
                f"string {len(found)} is invalid UTF-8 ({error.reason})", at=begin + error.start
            ) from None
        self.offset = offset
        return found


def _read_preamble(cursor: _Cursor) -> int:
    start = bytes(cursor.buffer[:16])
    if cursor.file_size == 0 or start[:4] != MAGIC[: len(start)]:
        found = f"it begins with {start[:4]!r}" if start else "it is empty"
        raise CorruptFileError(f"{cursor.path}: not a GGUF file ({found})", hint=recognise(start))
    cursor.skip(4)
    version = cursor.u32()
    if version in (2, 3):
        return version
    if version & 0xFFFF == 0 and version:
        raise UnsupportedError(
            f"{cursor.path}: a big-endian GGUF file", hint="convert the model again, little-endian"
        )
    if version == 1:
        raise UnsupportedError(
            f"{cursor.path}: GGUF version 1", hint="versions 2 and 3 can be read; convert it again"
        )
    raise cursor.corrupt(f"GGUF version {version}, known are 2 and 3", at=4)


def _read_metadata(cursor: _Cursor, count: int) -> Metadata:
    values: dict[str, MetadataValue] = {}
    types: dict[str, ValueType] = {}
    for index in range(count):
        cursor.place = f"key {index}"
        start = cursor.offset
        key = cursor.name(MAX_KEY)
        cursor.place = f"key {key!r:.80}"
        if key in values:
            raise cursor.corrupt("the key is there twice", at=start)
        types[key] = type_ = _read_value_type(cursor)
        values[key] = _read_value(cursor, type_)
    cursor.place = "header"
    return Metadata(MappingProxyType(values), MappingProxyType(types), path=cursor.path)


def _read_value_type(cursor: _Cursor) -> ValueType:
    number = cursor.u32()
    if number > max(ValueType):
        raise cursor.corrupt(f"unknown value type {number}", at=cursor.offset - 4)
    return ValueType(number)


def _read_value(cursor: _Cursor, type_: ValueType) -> MetadataValue:
    if type_ is ValueType.STRING:
        return cursor.string(MAX_STRING)
    if type_ is ValueType.ARRAY:
        return _read_array(cursor)
    scalar = STRUCTS[type_]
    start = cursor.skip(scalar.size)
    if type_ is ValueType.BOOL:
        byte = cursor.buffer[start]
        if byte > 1:
            raise cursor.corrupt(f"a boolean of value {byte}", at=start)
        return byte == 1
    value: int | float = scalar.unpack_from(cursor.buffer, start)[0]
    return value


def _read_array(cursor: _Cursor) -> MetadataValue:
    type_ = _read_value_type(cursor)
    if type_ is ValueType.ARRAY:
        raise UnsupportedError(f"{cursor.path}: {cursor.place} is an array of arrays")
    if type_ is ValueType.STRING:
        return cursor.strings(cursor.count("strings", 8, MAX_ARRAY))
    dtype = DTYPES[type_]
    count = cursor.count("elements", dtype.itemsize, MAX_ARRAY)
    start = cursor.skip(count * dtype.itemsize)
    if type_ is ValueType.BOOL:
        octets = np.frombuffer(cursor.buffer, np.uint8, count, start)
        if count and octets.max() > 1:
            raise cursor.corrupt("a boolean that is neither 0 nor 1", at=start)
    # A copy, so that the metadata outlives the map.
    values = np.frombuffer(cursor.buffer, dtype, count, start).copy()
    values.flags.writeable = False
    return values


def _alignment(cursor: _Cursor, metadata: Metadata) -> int:
    if ALIGNMENT_KEY not in metadata:
        return DEFAULT_ALIGNMENT
    value: Any = metadata[ALIGNMENT_KEY]
    if metadata.types[ALIGNMENT_KEY] is not ValueType.U32 or value not in ALIGNMENTS:
        raise CorruptFileError(
            f"{cursor.path}: key {ALIGNMENT_KEY!r} is {value!r:.80}, expected a u32 that is a"
            f" power of two from {ALIGNMENTS[0]} to {ALIGNMENTS[-1]}"
        )
    return int(value)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A row of the tensor table as it was written."""

    shape: tuple[int, ...]
    type: ggml_types.GgmlType
    offset: int  # from the start of the data

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) // self.type.block * self.type.nbytes


def _read_tensor_table(cursor: _Cursor, count: int) -> dict[str, _Entry]:
    entries: dict[str, _Entry] = {}
    for index in range(count):
        cursor.place = f"tensor {index}"
        start = cursor.offset
        name = cursor.name(MAX_TENSOR_NAME)
        cursor.place = f"tensor {name!r}"
        if name in entries:
            raise cursor.corrupt("the tensor is there twice", at=start)
        shape, type_ = _read_shape(cursor), _read_tensor_type(cursor)
        if shape[-1] % type_.block:
            raise cursor.corrupt(
                f"rows of {shape[-1]} elements, but {type_.name} has blocks of {type_.block}",
                at=start,
            )
        entries[name] = _Entry(shape, type_, cursor.u64())
    cursor.place = "header"
    return entries


def _read_shape(cursor: _Cursor) -> tuple[int, ...]:
    start = cursor.offset
    rank = cursor.u32()
    if not 1 <= rank <= MAX_DIMENSIONS:
        raise cursor.corrupt(f"{rank} dimensions, expected 1 to {MAX_DIMENSIONS}", at=start)
    sizes = struct.unpack_from(f"<{rank}Q", cursor.buffer, cursor.skip(8 * rank))
    if 0 in sizes or math.prod(sizes) >= 1 << 63:
        raise cursor.corrupt(f"impossible dimensions {sizes}", at=start)
    return tuple(reversed(sizes))


def _read_tensor_type(cursor: _Cursor) -> ggml_types.GgmlType:
    number = cursor.u32()
    if number in ggml_types.REMOVED:
        raise UnsupportedError(
            f"{cursor.path}: {cursor.place} has the type {ggml_types.REMOVED[number]},"
            " which ggml has removed",
            hint="quantise the model again",
        )
    if number not in ggml_types.BY_ID:
        raise cursor.corrupt(f"unknown tensor type {number}", at=cursor.offset - 4)
    return ggml_types.BY_ID[number]


def _place(
    cursor: _Cursor, entries: Mapping[str, _Entry], alignment: int
) -> tuple[dict[str, TensorInfo], int]:
    """Turns the table into absolute ranges of the file; returns them and their end."""
    if not entries:
        _check_end(cursor, cursor.offset, alignment)
        return {}, cursor.offset
    tensors: dict[str, TensorInfo] = {}
    data_start = padded(cursor.offset, alignment)
    end = data_start
    for name, entry in entries.items():
        cursor.place = f"tensor {name!r}"
        start = data_start + entry.offset
        expected = padded(end, alignment)
        if start != expected:
            fault = "overlaps what is before it" if start < end else "leaves a gap or is misaligned"
            raise cursor.corrupt(f"its data {fault}; it belongs at byte {expected}", at=start)
        end = start + entry.nbytes
        if end > cursor.file_size:
            raise cursor.truncated(end, at=start)
        tensors[name] = TensorInfo(
            name=name,
            type=entry.type.name,
            ggml_id=entry.type.id,
            shape=entry.shape,
            offset=start,
            nbytes=entry.nbytes,
            path=cursor.path,
        )
    cursor.place = "data"
    _check_end(cursor, end, alignment)
    return tensors, end


def _check_end(cursor: _Cursor, end: int, alignment: int) -> None:
    if cursor.file_size > padded(end, alignment):
        raise cursor.corrupt(f"{cursor.file_size - end} bytes after the end", at=end)
