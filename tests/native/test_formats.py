"""The native reading of string arrays: what the careful loop in Python reads, or nothing."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer import _native
from edgeinfer.errors import CorruptFileError
from edgeinfer.formats.gguf_header import _Cursor

LONGEST = 1000


def encoded(strings: list[bytes]) -> bytes:
    return b"".join(struct.pack("<Q", len(s)) + s for s in strings)


@given(st.lists(st.text()), st.binary(max_size=20), st.binary(max_size=20))
def test_strings_read_back(strings: list[str], before: bytes, after: bytes) -> None:
    body = encoded([s.encode(errors="replace") for s in strings])

    read = _native.read_strings(before + body + after, len(before), len(strings), LONGEST)

    expected = [s.encode(errors="replace").decode() for s in strings]
    assert read == (expected, len(before) + len(body))


@given(st.binary(max_size=64), st.integers(0, 70), st.integers(0, 9))
def test_any_bytes_read_as_in_python(data: bytes, offset: int, count: int) -> None:
    cursor = _Cursor(data, Path("data"), len(data))
    cursor.offset = min(offset, len(data))
    try:
        expected = (cursor._strings_one_by_one(count), cursor.offset)
    except CorruptFileError:
        expected = None

    assert _native.read_strings(data, min(offset, len(data)), count, 16 << 20) == expected


@pytest.mark.parametrize(
    ("data", "offset", "count"),
    [
        (encoded([b"ab", b"cd"])[:-1], 0, 2),
        (encoded([b"ab"]), 0, 2),
        (encoded([b"ab"]), 11, 1),
        (encoded([b"ab"]), 2**64 - 1, 1),
        (encoded([b"ab"]), 0, 2**64 - 1),
        (struct.pack("<Q", 2**64 - 1) + b"ab", 0, 1),
        (encoded([b"a" * (LONGEST + 1)]), 0, 1),
        (encoded([b"good", b"\xff"]), 0, 2),
        (encoded([b"\xed\xa0\x80"]), 0, 1),  # half of a surrogate pair
    ],
    ids=str,
)
def test_what_is_not_right_is_left_to_python(data: bytes, offset: int, count: int) -> None:
    assert _native.read_strings(data, offset, count, LONGEST) is None


def test_a_mapped_file_is_read_and_let_go(tmp_path: Path) -> None:
    path = tmp_path / "strings"
    path.write_bytes(encoded([b"one", b"two"]))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as map_:
        assert _native.read_strings(map_, 0, 2, LONGEST) == (["one", "two"], 22)
        with pytest.raises(TypeError):
            _native.read_strings(12, 0, 2, LONGEST)
    assert map_.closed  # closing raises while a view is held
