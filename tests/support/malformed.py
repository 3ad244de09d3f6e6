"""Thousands of GGUF files that are wrong, each in one way, made from one that is right.

``iter_malformed(valid)`` yields (label, file) pairs, the same ones every time: truncated at
every length, every integer of the header at its extremes, every type number, random bytes,
the files that crashed other parsers, and well-formed files that make no sense. Each must be
read or refused with an EdgeInferError; a label says what to look for when one is not.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import replace

from support.gguf_parts import (
    ARRAY,
    BLOCKS,
    BOOL,
    F32,
    I32,
    SIZES,
    STRING,
    U32,
    U64,
    Field,
    Key,
    Parts,
    Tensor,
    array,
    assemble,
    dissect,
    laid_out,
    split_array,
    string,
    with_tensor,
)

Case = tuple[str, bytes]

U32_EXTREMES = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 1 << 31, (1 << 31) - 1, (1 << 32) - 1)
U64_EXTREMES = (
    *(0, 1, 2, 1 << 16, 1 << 24, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 42) + 1, 1 << 60),
    *((1 << 63) - 1, 1 << 63, (1 << 64) - 2, (1 << 64) - 1, 0x7FFFFFFFFFFFFFC0),
)


def iter_malformed(valid: bytes, *, seed: int = 0, flips: int = 1500) -> Iterator[Case]:
    """Yields every malformed variant of a small valid GGUF file."""
    parts, fields, header = dissect(valid)
    yield from truncations(valid, fields, header)
    yield from extremes(valid, fields)
    yield from flipped(valid, header, random.Random(seed), flips)
    yield from handcrafted(parts)
    yield from senseless_metadata(parts)
    yield from senseless_tensors(parts)


def truncations(valid: bytes, fields: list[Field], header: int) -> Iterator[Case]:
    lengths = set(range(min(header, 1500)))
    lengths |= {field.offset + shift for field in thinned(fields) for shift in (-1, 0, 1, 4)}
    lengths |= {header + (len(valid) - header) * step // 50 for step in range(50)}
    lengths |= {header - 1, header, header + 1, len(valid) - 33, len(valid) - 32}
    for length in sorted(length for length in lengths if 0 <= length < len(valid)):
        yield f"truncated to {length}", valid[:length]


def extremes(valid: bytes, fields: list[Field]) -> Iterator[Case]:
    for field in thinned(fields):
        is_type = field.label.endswith("type")
        numbers = range(48) if is_type else ()
        remaining = len(valid) - field.offset - field.size
        for number in dict.fromkeys(
            (*numbers, *(U32_EXTREMES if field.size == 4 else U64_EXTREMES), remaining + 1)
        ):
            changed = bytearray(valid)
            changed[field.offset : field.offset + field.size] = number.to_bytes(
                field.size, "little"
            )
            if changed != valid:
                yield f"{field.label} = {number:#x}", bytes(changed)


def thinned(fields: list[Field]) -> list[Field]:
    """All fields of a small file; of long arrays of strings the first and last elements."""
    elements = [field for field in fields if "]." in field.label and ".value[" in field.label]
    if len(elements) <= 64:
        return fields
    skipped = set(elements[16:-16])
    return [field for field in fields if field not in skipped]


def flipped(valid: bytes, header: int, rng: random.Random, count: int) -> Iterator[Case]:
    for number in range(count):
        changed = bytearray(valid)
        for _ in range(rng.choice((1, 1, 1, 2, 8))):
            changed[rng.randrange(4, header)] = rng.choice(
                (0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256))
            )
        yield f"random bytes {number}", bytes(changed)
    for number in range(count // 10):
        cut, length = rng.randrange(4, header), rng.randrange(1, 64)
        yield f"bytes cut out {number}", valid[:cut] + valid[cut + length :]
        yield f"bytes put in {number}", valid[:cut] + rng.randbytes(length) + valid[cut:]
        yield f"bytes repeated {number}", valid[: cut + length] + valid[cut:]


def handcrafted(parts: Parts) -> Iterator[Case]:
    """What other parsers have crashed on, hung on, or read wrongly."""
    valid = assemble(parts)
    yield "empty", b""
    yield from {
        "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "web page": b"<!DOCTYPE html><html><body>404</body></html>",
        "zip": b"PK\x03\x04" + bytes(60),
        "safetensors": struct.pack("<Q", 2) + b"{}",
        "zeros": bytes(4096),
        "lower case": b"gguf" + valid[4:],
        "swapped magic": b"FUGG" + valid[4:],
        "big-endian": valid[:4] + struct.pack(">I", 3) + valid[8:],
        "header only": struct.pack("<4sIQQ", b"GGUF", 3, 0, 0)[:-1],
    }.items()
    for version in (0, 1, 4, 0xFFFF, 0xFFFFFFFF):
        yield f"version {version}", assemble(replace(parts, version=version))
    yield from counts(parts)
    yield from alignments(parts)
    yield from names(parts)
    yield from arrays(parts)
    yield from layouts(parts)


def counts(parts: Parts) -> Iterator[Case]:
    """CVE-2024-21836, CVE-2024-23605: the product of a count and a size wraps."""
    lone = replace(parts, keys=(), tensors=(), data=b"")
    for count in (1, 1 << 16, 1 << 24, (1 << 64) // 24 + 1, 1 << 60, 1 << 63, (1 << 64) - 1):
        yield f"{count} tensors announced", assemble(replace(parts, tensor_count=count))
        yield f"{count} keys announced", assemble(replace(parts, key_count=count))
        yield f"{count} tensors, none there", assemble(replace(lone, tensor_count=count))
        yield f"{count} keys, none there", assemble(replace(lone, key_count=count))


def alignments(parts: Parts) -> Iterator[Case]:
    keys = tuple(key for key in parts.keys if key.name != b"general.alignment")
    for value in (0, 1, 3, 4, 31, 33, 48, 1 << 21, 1 << 31, (1 << 32) - 1):
        key = Key(b"general.alignment", U32, struct.pack("<I", value))
        yield f"alignment {value}", assemble(replace(parts, keys=(*keys, key)))
    for type_, body in ((I32, struct.pack("<i", 32)), (U64, struct.pack("<Q", 32)),
                        (F32, struct.pack("<f", 32)), (BOOL, b"\1"), (STRING, string(b"32")),
                        (ARRAY, array(U32, 1, struct.pack("<I", 32)))):  # fmt: skip
        key = Key(b"general.alignment", type_, body)
        yield f"alignment of type {type_}", assemble(replace(parts, keys=(*keys, key)))


def names(parts: Parts) -> Iterator[Case]:
    bad = {
        "empty": b"",
        "not UTF-8": b"\xff\xfe",
        "half a character": b"a\xe2\x82",
        "overlong slash": b"\xc0\xaf",
        "surrogate": b"\xed\xa0\x80",
        "64 bytes": b"n" * 64,
        "100,000 bytes": b"n" * 100_000,
    }
    for label, name in bad.items():
        key = Key(name, U32, bytes(4))
        yield f"key name {label}", assemble(replace(parts, keys=(*parts.keys, key)))
        for index, tensor in enumerate(parts.tensors[:2]):
            renamed = replace(tensor, name=name)
            yield f"tensor name {label} {index}", assemble(with_tensor(parts, index, renamed))
        value = Key(b"x.string", STRING, string(name))
        yield f"string {label}", assemble(replace(parts, keys=(*parts.keys, value)))
        values = Key(b"x.strings", ARRAY, array(STRING, 2, string(b"ok") + string(name)))
        yield f"string in array {label}", assemble(replace(parts, keys=(*parts.keys, values)))


def arrays(parts: Parts) -> Iterator[Case]:
    """CVE-2024-21825, CVE-2024-23496: lengths of arrays and strings that wrap."""
    for element in (*range(14), 255, (1 << 32) - 1):
        for count in (0, 1, 1 << 26, 1 << 32, 1 << 61, 1 << 63, (1 << 64) - 1):
            key = Key(b"x.array", ARRAY, array(element, count, bytes(32)))
            yield (
                f"array of {count} of type {element}",
                assemble(replace(parts, keys=(*parts.keys, key))),
            )
    body = b""
    for depth in range(1, 200):
        body = array(ARRAY, 1, body) if depth > 1 else array(U32, 0, b"")
        if depth in (2, 3, 10, 199):
            key = Key(b"x.nested", ARRAY, body)
            yield f"array nested {depth} deep", assemble(replace(parts, keys=(*parts.keys, key)))
    for octet in (2, 0x80, 0xFF):
        for label, type_, body in (
            ("boolean", BOOL, bytes([octet])),
            ("booleans", ARRAY, array(BOOL, 3, bytes([0, 1, octet]))),
        ):
            key = Key(b"x.bool", type_, body)
            yield f"{label} of {octet}", assemble(replace(parts, keys=(*parts.keys, key)))


def layouts(parts: Parts) -> Iterator[Case]:
    """Tensors that overlap, leave gaps, leave the file, or are exabytes on paper."""
    yield "bytes after the end", assemble(replace(parts, data=parts.data + bytes(4096)))
    yield "no data", assemble(replace(parts, data=b""))
    yield "tensors in reverse", assemble(replace(parts, tensors=parts.tensors[::-1]))
    huge = 0x7FFFFFFFFFFFFFC0  # GHSA-vgg9-87g3-85w8: two of these wrap the sum
    pair = tuple(Tensor(b"t%d" % n, (huge,), 24, n * huge) for n in range(2))
    yield "two tensors of 2^63 bytes", assemble(replace(parts, tensors=pair))
    for index, tensor in enumerate(parts.tensors):
        for offset in (
            tensor.offset + 1, tensor.offset + 32, max(tensor.offset - 32, 0),
            0, len(parts.data), 1 << 62, (1 << 64) - 32,
        ):  # fmt: skip
            if offset != tensor.offset:
                moved = replace(tensor, offset=offset)
                yield f"tensor {index} at {offset}", assemble(with_tensor(parts, index, moved))
        for dims in (
            (), (0,), (*tensor.dims, 0), (1 << 63,), (1 << 32, 1 << 32), (1 << 62, 4),
            (1 << 16,) * 4, (1,) * 5, (256,) * 70,
            *(((1 << power) + 1,) for power in range(30, 63)),
            *((tensor.dims[0], (1 << power) + 1) for power in range(30, 63, 4)),
            *((32 * ((1 << power) + 1),) for power in range(30, 58, 4)),
        ):  # fmt: skip
            changed = replace(tensor, dims=dims)
            yield f"tensor {index} of {dims}", assemble(with_tensor(parts, index, changed))
        twin = replace(parts.tensors[index - 1], name=tensor.name)
        if len(parts.tensors) > 1:
            yield f"tensor name {index} twice", assemble(with_tensor(parts, index - 1, twin))


VALUES = (
    *((U32, struct.pack("<I", value)) for value in (*U32_EXTREMES, 3, 7, 513, 1_000_000)),
    *((I32, struct.pack("<i", value)) for value in (-1, -(1 << 31), 5)),
    *((U64, struct.pack("<Q", value)) for value in (1 << 32, 1 << 63, (1 << 64) - 1)),
    *((F32, struct.pack("<f", value)) for value in (0.0, -1.0, 1e-30, 3e38)),
    *((F32, octets) for octets in (b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\0\0\x80\xff")),  # nan, inf
    (BOOL, b"\0"),
    (BOOL, b"\1"),
    *((STRING, string(text)) for text in (b"", b"x", b"\0", b"llama", b"{{", b"x" * 5000)),
    (ARRAY, array(STRING, 0, b"")),
    (ARRAY, array(U32, 0, b"")),
    (ARRAY, array(STRING, 1, string(b"a"))),
    (ARRAY, array(I32, 2, struct.pack("<2i", -1, 1 << 30))),
    (ARRAY, array(F32, 2, struct.pack("<2f", 1.0, -1e30))),
)


def senseless_metadata(parts: Parts) -> Iterator[Case]:
    """Well-formed files: a key is missing, is there twice, or has another's value."""

    def swapped(index: int, *keys: Key) -> bytes:
        return assemble(replace(parts, keys=(*parts.keys[:index], *keys, *parts.keys[index + 1 :])))

    for index, key in enumerate(parts.keys):
        label = key.name.decode()
        yield f"{label} missing", swapped(index)
        yield f"{label} twice", swapped(index, key, key)
        yield f"{label} renamed", swapped(index, replace(key, name=key.name + b"_"))
        for number, (type_, body) in enumerate(VALUES):
            if (type_, body) != (key.type, key.body):
                changed = replace(key, type=type_, body=body)
                yield f"{label} = value {number} (type {type_})", swapped(index, changed)
        if key.type == ARRAY:
            for what, body in shuffled_arrays(key.body):
                yield f"{label} {what}", swapped(index, replace(key, body=body))


TOKENS = (
    b"",
    b"\xff",
    b"\xed\xa0\x80",
    b"<0x-1>",
    b"<0xGG>",
    b"<0x >",
    b"<0x41>",
    b"\0",
    b"x" * 5000,
)


def shuffled_arrays(body: bytes) -> Iterator[tuple[str, bytes]]:
    """An array with elements missing, doubled, or replaced."""
    element, count = struct.unpack_from("<IQ", body)
    elements = split_array(body, element, count)

    def joined(changed: list[bytes]) -> bytes:
        return array(element, len(changed), b"".join(changed))

    yield "emptied", joined([])
    yield "without its last element", joined(elements[:-1])
    yield "halved", joined(elements[: count // 2])
    yield "doubled", joined(elements * 2)
    yield "reversed", joined(elements[::-1])
    yield "all the same", joined(elements[:1] * count)
    for index in {0, count // 2, count - 1} if count else ():
        for text in TOKENS if element == STRING else ():
            changed = [*elements[:index], string(text), *elements[index + 1 :]]
            yield f"[{index}] = {text[:10]!r}", joined(changed)
        for octet in () if element == STRING else (0x00, 0x7F, 0xFF):
            size = SIZES[element]
            changed = [*elements[:index], bytes([octet]) * size, *elements[index + 1 :]]
            yield f"[{index}] = bytes {octet:#x}", joined(changed)


def senseless_tensors(parts: Parts) -> Iterator[Case]:
    """Well-formed files: a tensor is missing, renamed, reshaped, or of another type."""
    for index, tensor in enumerate(parts.tensors):
        label = tensor.name.decode()
        others = (*parts.tensors[:index], *parts.tensors[index + 1 :])
        yield f"{label} missing", laid_out(parts, others)
        renamed = replace(tensor, name=b"x." + tensor.name[:60])
        changes = [("renamed", renamed)]
        for type_, (block, _) in BLOCKS.items():
            if type_ != tensor.type and tensor.dims[0] % block == 0:
                changes.append((f"as type {type_}", replace(tensor, type=type_)))
        for dims in (
            tensor.dims[::-1], (*tensor.dims[:-1], tensor.dims[-1] + 1), (*tensor.dims, 2),
            (2 * tensor.dims[0], *tensor.dims[1:]), (256,), (256, 256),
        ):  # fmt: skip
            if dims != tensor.dims and dims[0] % BLOCKS.get(tensor.type, (256, 0))[0] == 0:
                changes.append((f"as {dims}", replace(tensor, dims=dims)))
        for what, changed in changes:
            tensors = (*parts.tensors[:index], changed, *parts.tensors[index + 1 :])
            yield f"{label} {what}", laid_out(parts, tensors)
    yield "no tensors", laid_out(parts, ())
