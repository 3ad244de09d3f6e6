"""The small file of things found out before: it may be lost, but it never stands in the way."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from edgeinfer.formats import remembered
from edgeinfer.formats.remembered import Remembered


def test_what_is_put_is_got_by_whoever_opens_the_file(tmp_path):
    Remembered(tmp_path / "a" / "b.json").put("key", {"x": 1})
    Remembered(tmp_path / "a" / "b.json").put("other", {"x": 2})

    assert Remembered(tmp_path / "a" / "b.json").get("key") == {"x": 1}
    assert Remembered(tmp_path / "a" / "b.json").get("none") is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b'{"key": 3}', b"\xff\xfe", b"[" * 100_000], ids=repr
)
def test_a_damaged_file_is_an_empty_one(tmp_path, content):
    path = tmp_path / "b.json"
    path.write_bytes(content)

    assert Remembered(path).get("key") is None
    Remembered(path).put("new", {"x": 1})
    assert Remembered(path).get("new") == {"x": 1}


def test_many_writers_lose_nothing(tmp_path):
    memory = Remembered(tmp_path / "b.json")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: memory.put(str(n), {"n": n}), range(40)))

    assert len(json.loads(memory.path.read_bytes())) == 40


def test_the_oldest_are_forgotten_first(tmp_path, monkeypatch):
    monkeypatch.setattr(remembered, "MOST", 3)
    memory = Remembered(tmp_path / "b.json")
    for key in ("a", "b", "c", "a", "d"):
        memory.put(key, {})

    assert [key for key, _ in memory.items()] == ["c", "a", "d"]
