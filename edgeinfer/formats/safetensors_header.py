"""The header of a safetensors file, read as if an enemy had written it.

Eight bytes of length, a JSON object of tensors, and their data: each byte of it belongs to
exactly one tensor, so nothing can hide in a gap and nothing is read twice.

Source: https://github.com/huggingface/safetensors (format, and its limit of 100 MB)
"""

from __future__ import annotations

import math
import reprlib
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from typing import Any, NoReturn

from edgeinfer.errors import CorruptFileError
from edgeinfer.formats.foreign import recognise
from edgeinfer.formats.untrusted_json import parse_json

MAX_HEADER = 100_000_000  # bytes
MAX_DIMENSIONS = 32
METADATA_KEY = "__metadata__"

# Every type of the format; the reader takes those that numpy can hold.
BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8,
    "U64": 64, "U32": 32, "U16": 16, "U8": 8,
    "BOOL": 8, "C64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """Where a tensor of a checkpoint is and what its bytes mean.

    Attributes:
        dtype: the format's name, such as ``BF16``.
        offset: of the first byte, from the start of the file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    path: Path


def parse_safetensors_header(
    buffer: bytes | mmap, *, path: Path, file_size: int | None = None
) -> dict[str, StoredTensor]:
    """Reads the table of tensors, in the order of their data.

    Args:
        buffer: the file, or its beginning with all of the header.
        path: the name that errors and tensors carry.
        file_size: bytes of the whole file if the buffer is only its beginning.

    Raises:
        CorruptFileError: not a safetensors file, or one that contradicts itself.
    """

    def corrupt(problem: str) -> NoReturn:
        raise CorruptFileError(f"{path}: {problem}", hint=recognise(bytes(buffer[:8])))

    if len(buffer) < 8:
        corrupt(f"not a safetensors file: {len(buffer)} bytes")
    size = int.from_bytes(buffer[:8], "little")
    if size > MAX_HEADER:
        corrupt(f"not a safetensors file, or damaged: a header of {size} bytes")
    if size > len(buffer) - 8:
        corrupt(f"truncated: a header of {size} bytes in a file of {len(buffer)}")
    whole = len(buffer) if file_size is None else file_size
    try:
        table = parse_json(buffer[8 : 8 + size])
    except ValueError as error:
        raise CorruptFileError(f"{path}: the header is not valid: {error}") from None
    _check_notes(table.pop(METADATA_KEY, None), path)
    tensors = [_tensor(name, row, 8 + size, path) for name, row in table.items()]
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.nbytes))
    _check_layout(tensors, 8 + size, whole, path)
    return {tensor.name: tensor for tensor in tensors}


def _check_notes(notes: Any, path: Path) -> None:
    if notes is None:
        return
    if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
        raise CorruptFileError(f"{path}: {METADATA_KEY} is not an object of strings")


def _tensor(name: str, row: Any, start: int, path: Path) -> StoredTensor:
    """Checks one row of the table: its fields, and that type and shape give its size."""

    def corrupt(problem: str) -> NoReturn:
        raise CorruptFileError(f"{path}: tensor {name!r:.160}: {problem}")

    if not name or not name.isprintable():
        corrupt("the name is empty or unprintable")
    if not isinstance(row, dict) or row.keys() != {"dtype", "shape", "data_offsets"}:
        corrupt("not an object of dtype, shape and data_offsets")
    dtype, shape, offsets = row["dtype"], row["shape"], row["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        corrupt(f"unknown dtype {reprlib.repr(dtype)}")
    if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS:
        corrupt(f"shape {reprlib.repr(shape)}")
    if not _are_sizes(offsets) or len(offsets) != 2:
        corrupt(f"data_offsets {reprlib.repr(offsets)}")
    begin, end = offsets
    bits = math.prod(shape) * BITS[dtype]
    if bits != 8 * (end - begin):
        corrupt(f"{dtype} {shape} takes {bits / 8:g} bytes, its data_offsets span {end - begin}")
    return StoredTensor(
        name=name,
        dtype=dtype,
        shape=tuple(shape),
        offset=start + begin,
        nbytes=end - begin,
        path=path,
    )


def _are_sizes(values: Any) -> bool:
    # The type is compared because True is an int, too.
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 1 << 63 for v in values)


def _check_layout(tensors: list[StoredTensor], start: int, file_size: int, path: Path) -> None:
    end = start
    for tensor in tensors:
        if tensor.offset != end:
            fault = "overlaps the one before it" if tensor.offset < end else "leaves a gap"
            raise CorruptFileError(
                f"{path}: tensor {tensor.name!r:.160}, byte {tensor.offset}: its data {fault}"
            )
        end += tensor.nbytes
    if end != file_size:
        fault = "truncated" if end > file_size else "bytes after the end"
        raise CorruptFileError(f"{path}: {fault}: {end} bytes in its table, {file_size} there")
