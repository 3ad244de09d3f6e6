"""Measurements that outlive the run that made them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeinfer.calibration.state import State, fingerprint
from edgeinfer.errors import NotFoundError, UsageError


def test_what_was_put_is_there_for_the_same_key_only(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    state = State(path, "a model and a text")
    state.put("blk.0.attn_q.weight", {"error q4_k": 0.25})
    state.put("blk.0.attn_q.weight", {"error q2_k": 0.5})
    state.write()

    again = State(path, "a model and a text")
    other = State(path, "another text")

    assert again.get("blk.0.attn_q.weight", "error q4_k") == 0.25
    assert again.get("blk.0.attn_q.weight", "error q2_k") == 0.5
    assert again.get("blk.0.attn_q.weight", "error q8_0") is None
    assert other.get("blk.0.attn_q.weight", "error q4_k") is None


@pytest.mark.parametrize("rest", ["", '"k"}', '"k",', '"k", "numbers": {"a": {"b": "c"}}}', "3}"])
def test_a_damaged_file_is_as_none(tmp_path: Path, rest: str) -> None:
    path = tmp_path / "state.json"
    path.write_text('{\n "key": ' + rest)

    assert State(path, "k").numbers == {}


def test_an_empty_file_is_as_none(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.touch()

    assert State(path, "k").numbers == {}


@pytest.mark.parametrize("other", [b"GGUF\x03\0\0\0", b"[]", b'{"model_type": "llama"}', b"3"])
def test_a_file_of_something_else_is_never_overwritten(tmp_path: Path, other: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(other)

    with pytest.raises(UsageError, match="not a file of measurements"):
        State(path, "k")

    assert path.read_bytes() == other


def test_without_a_file_numbers_are_kept_for_the_run(tmp_path: Path) -> None:
    state = State(None, "k")
    state.put("a", {"b": 1.0})
    state.write()

    assert state.get("a", "b") == 1.0


def test_other_bytes_have_another_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "model"
    octets = bytearray(1 << 20)
    path.write_bytes(octets)
    first = fingerprint(path)
    octets[-1] = 1
    path.write_bytes(octets)
    second = fingerprint(path)
    (tmp_path / "other").write_bytes(b"x")

    assert second != first
    assert fingerprint(tmp_path) not in (first, second)


def test_a_state_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path,
) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        State(tmp_path / "nowhere" / "state.json", "k")
