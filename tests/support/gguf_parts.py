"""A GGUF file taken apart and put together again, without the code under test."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

STRING, ARRAY = 8, 9
U32, I32, F32, BOOL, U64 = 4, 5, 6, 7, 10
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes by type
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 8: (32, 34), 12: (256, 144), 26: (1, 4), 30: (1, 2)}


@dataclass(frozen=True)
class Key:
    name: bytes
    type: int
    body: bytes  # the value as it lies in the file


@dataclass(frozen=True)
class Tensor:
    name: bytes
    dims: tuple[int, ...]  # ggml's order
    type: int
    offset: int


@dataclass(frozen=True)
class Parts:
    """A GGUF file taken apart."""

    keys: tuple[Key, ...]
    tensors: tuple[Tensor, ...]
    data: bytes
    alignment: int = 32
    version: int = 3
    tensor_count: int | None = None  # None: as many as there are
    key_count: int | None = None


@dataclass(frozen=True)
class Field:
    """An integer of the header."""

    label: str
    offset: int
    size: int  # 4 or 8


class Walker:
    """Walks over a valid header and notes each integer."""

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self.offset = 4
        self.fields: list[Field] = []

    def integer(self, label: str, size: int) -> int:
        self.fields.append(Field(label, self.offset, size))
        return int.from_bytes(self.take(size), "little")

    def take(self, size: int) -> bytes:
        self.offset += size
        return self.octets[self.offset - size : self.offset]

    def string(self, label: str) -> bytes:
        return self.take(self.integer(f"{label}.length", 8))

    def value(self, label: str, type_: int) -> None:
        if type_ == STRING:
            self.string(label)
        elif type_ == ARRAY:
            element = self.integer(f"{label}.element_type", 4)
            count = self.integer(f"{label}.count", 8)
            for index in range(count if element == STRING else 0):
                self.string(f"{label}[{index}]")
            self.take(0 if element == STRING else count * SIZES[element])
        elif SIZES[type_] >= 4:
            self.integer(label, SIZES[type_])
        else:
            self.take(SIZES[type_])


def dissect(valid: bytes) -> tuple[Parts, list[Field], int]:
    """Takes a valid file apart; returns it, its integers, and the header's size."""
    walker = Walker(valid)
    version = walker.integer("version", 4)
    tensor_count, key_count = walker.integer("tensors", 8), walker.integer("keys", 8)
    keys, tensors, alignment = [], [], 32
    for index in range(key_count):
        name = walker.string(f"key[{index}].name")
        type_ = walker.integer(f"key[{index}].type", 4)
        start = walker.offset
        walker.value(f"key[{index}].value", type_)
        keys.append(Key(name, type_, valid[start : walker.offset]))
        if name == b"general.alignment":
            alignment = int.from_bytes(keys[-1].body, "little")
    for index in range(tensor_count):
        label = f"tensor[{index}]"
        name = walker.string(f"{label}.name")
        rank = walker.integer(f"{label}.rank", 4)
        dims = tuple(walker.integer(f"{label}.dims[{axis}]", 8) for axis in range(rank))
        type_, offset = walker.integer(f"{label}.type", 4), walker.integer(f"{label}.offset", 8)
        tensors.append(Tensor(name, dims, type_, offset))
    end = walker.offset
    data = valid[end + -end % alignment :]
    return Parts(tuple(keys), tuple(tensors), data, alignment, version), walker.fields, end


def assemble(parts: Parts) -> bytes:
    """Puts a file together; what the parts say is written, right or wrong."""
    tensor_count = len(parts.tensors) if parts.tensor_count is None else parts.tensor_count
    key_count = len(parts.keys) if parts.key_count is None else parts.key_count
    octets = bytearray(struct.pack("<4sIQQ", b"GGUF", parts.version, tensor_count, key_count))
    for key in parts.keys:
        octets += string(key.name) + struct.pack("<I", key.type) + key.body
    for tensor in parts.tensors:
        octets += string(tensor.name) + struct.pack("<I", len(tensor.dims))
        octets += struct.pack(f"<{len(tensor.dims)}Q", *tensor.dims)
        octets += struct.pack("<IQ", tensor.type, tensor.offset)
    return bytes(octets) + bytes(-len(octets) % parts.alignment) + parts.data


def string(octets: bytes) -> bytes:
    return struct.pack("<Q", len(octets)) + octets


def array(element: int, count: int, body: bytes) -> bytes:
    return struct.pack("<IQ", element, count) + body


def with_tensor(parts: Parts, index: int, tensor: Tensor) -> Parts:
    tensors = list(parts.tensors)
    tensors[index] = tensor
    return replace(parts, tensors=tuple(tensors))


def split_array(body: bytes, element: int, count: int) -> list[bytes]:
    elements, offset = [], 12
    for _ in range(count):
        size = SIZES.get(element) or 8 + int.from_bytes(body[offset : offset + 8], "little")
        elements.append(body[offset : offset + size])
        offset += size
    return elements


def laid_out(parts: Parts, tensors: tuple[Tensor, ...]) -> bytes:
    """Puts a file together with zeros for data, each tensor where it belongs."""
    placed, end = [], 0
    for tensor in tensors:
        block, size = BLOCKS.get(tensor.type, (256, 256))
        elements = 1
        for dim in tensor.dims:
            elements *= dim
        placed.append(replace(tensor, offset=end))
        end += elements // block * size
        end += -end % parts.alignment
    return assemble(replace(parts, tensors=tuple(placed), data=bytes(end)))
