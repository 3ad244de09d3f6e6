"""Safetensors files that are wrong, each in one way, made from one that is right."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator
from typing import Any

from support.malformed import Case

EXTREMES = (-1, 0, 1, 1 << 31, 1 << 32, (1 << 62) + 1, 1 << 63, 1 << 64, 10**400)
NONSENSE: tuple[Any, ...] = (None, True, 0.5, "x", [], {}, [None], [[1]], ["1"], [True], [-1])


def split(valid: bytes) -> tuple[dict[str, Any], bytes]:
    """Returns the header's object and the data after it."""
    size = int.from_bytes(valid[:8], "little")
    return json.loads(valid[8 : 8 + size]), valid[8 + size :]


def joined(header: Any, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def iter_malformed_safetensors(valid: bytes, *, seed: int = 0) -> Iterator[Case]:
    """Yields every malformed variant of a small valid safetensors file."""
    header, data = split(valid)
    size = int.from_bytes(valid[:8], "little")
    for length in (*range(8 + size), *range(8 + size, len(valid), 7), len(valid) - 1):
        yield f"truncated to {length}", valid[:length]
    for number in (
        0,
        1,
        2,
        size - 1,
        size + 1,
        len(valid),
        1 << 26,
        1 << 31,
        1 << 63,
        (1 << 64) - 1,
    ):
        yield f"header of {number} bytes", struct.pack("<Q", number) + valid[8:]
    yield from changed_rows(header, data)
    yield from bad_json(header, data)
    rng = random.Random(seed)
    for number in range(500):
        changed = bytearray(valid)
        for _ in range(rng.choice((1, 1, 2, 8))):
            changed[rng.randrange(8 + size)] = rng.choice((*b'0{}[]",:9-', rng.randrange(256)))
        yield f"random bytes {number}", bytes(changed)


def changed_rows(header: dict[str, Any], data: bytes) -> Iterator[Case]:
    """A field of a tensor is missing or has another value."""

    def changed(name: str, **fields: Any) -> bytes:
        return joined({**header, name: {**header[name], **fields}}, data)

    for name, row in header.items():
        for value in NONSENSE:
            yield f"{name} = {value}", joined({**header, name: value}, data)
        if name == "__metadata__":
            continue
        yield f"{name} missing", joined({k: v for k, v in header.items() if k != name}, data)
        yield f"{name} with more", changed(name, more=1)
        for field in row:
            less = {k: v for k, v in row.items() if k != field}
            yield f"{name} without {field}", joined({**header, name: less}, data)
            for value in NONSENSE:
                yield f"{name}.{field} = {value}", changed(name, **{field: value})
        begin, end = row["data_offsets"]
        for number in EXTREMES:
            label = f"{number:.3g}" if number < 1 << 65 else "10^400"
            yield f"{name} begins at {label}", changed(name, data_offsets=[number, end])
            yield f"{name} ends at {label}", changed(name, data_offsets=[begin, number])
            yield f"{name} of ({label},)", changed(name, shape=[number])
            yield f"{name} of {label} twice", changed(name, shape=[number, number])
        for offsets in ([end, begin], [begin + 4, end + 4], [begin], [begin, end, end]):
            yield f"{name} at {offsets}", changed(name, data_offsets=offsets)
        yield f"{name} of 100,000 dimensions", changed(name, shape=[1] * 100_000)
        for dtype in ("F32", "BF16", "F8_E4M3", "F4", "f32", "X", ""):
            yield f"{name} as {dtype!r}", changed(name, dtype=dtype)
        for other in ("", "\0", "\ud800", "../x", "x" * 100_000):
            renamed = {other if k == name else k: v for k, v in header.items()}
            yield f"{name} renamed {other[:8]!r}", joined(renamed, data)


def bad_json(header: dict[str, Any], data: bytes) -> Iterator[Case]:
    text = json.dumps(header).encode()
    row = json.dumps(next(v for k, v in header.items() if k != "__metadata__")).encode()
    for label, octets in {
        "deep lists": b"[" * 1_000_000,
        "deep objects": b'{"a":' * 500_000,
        "deep within": text[:-1] + b',"deep":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        "not UTF-8": text.replace(b'"F32"', b'"\xff"'),
        "BOM": b"\xef\xbb\xbf" + text,
        "UTF-16": text.decode().encode("utf-16"),
        "NaN": b'{"a": NaN}',
        "a million digits": b'{"a": ' + b"9" * 1_000_000 + b"}",
        "list": b"[]",
        "string": b'"x"',
        "two objects": text + text,
        "same name twice": text[:-1] + b',"same":' + row + b',"same":' + row + b"}",
        "200,000 empty lists": b'{"a": [' + b"[]," * 200_000 + b"[]]}",
        "many names, one twice": b"{"
        + b",".join(b'"%d":0' % n for n in range(100_000))
        + b',"99999":0}',
    }.items():
        yield label, joined(octets, data)
    yield "bytes after the end", joined(header, data + b"\0")
    yield "no data", joined(header, b"")
    yield "empty", b""
    yield "GGUF", b"GGUF" + bytes(100)
