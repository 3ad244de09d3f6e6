"""Byte counts as people write and read them."""

from __future__ import annotations

import pytest

from edgeinfer.errors import UsageError
from edgeinfer.planner import format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("2GiB", 2 << 30),
        ("2 gib", 2 << 30),
        ("512MiB", 512 << 20),
        ("1.5KiB", 1536),
        ("1GB", 10**9),
        ("1G", 10**9),
        ("1Gi", 1 << 30),
        ("1.5MB", 1_500_000),
        ("123", 123),
        ("123B", 123),
        (4096, 4096),
        ("1TiB", 1 << 40),
    ],
)
def test_sizes(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize(
    "text", ["", "GiB", "-1GiB", "2XB", "1.2.3", "i", "1i", "0", "nan", "2 G i B"]
)
def test_what_is_no_size(text):
    with pytest.raises(UsageError):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (2 << 30, "2.0 GiB"),
        (3 << 50, "3072.0 TiB"),
    ],
)
def test_for_people(count, text):
    assert format_bytes(count) == text
