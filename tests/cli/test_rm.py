"""``edgeinfer rm`` (what is removed: tests/store)."""

from __future__ import annotations

import json

import pytest

from edgeinfer import store
from edgeinfer.errors import NotFoundError
from edgeinfer.store import Removed


@pytest.fixture
def removed(monkeypatch):
    """Records what is removed; "gone" is not there."""
    references = []

    def remove(reference: str) -> Removed:
        if reference == "gone":
            raise NotFoundError("gone is not on this machine")
        references.append(reference)
        return Removed(reference=reference, bytes=1 << 20)

    monkeypatch.setattr(store, "remove", remove)
    return references


def test_each_model_is_removed(edgeinfer, removed):
    outcome = edgeinfer("rm", "one", "two")

    assert removed == ["one", "two"]
    assert outcome.stdout.splitlines() == [
        "removed one, 1.0 MiB freed",
        "removed two, 1.0 MiB freed",
    ]


def test_json_is_a_record_a_model(edgeinfer, removed):
    lines = edgeinfer("rm", "one", "two", "--json").stdout.splitlines()

    assert json.loads(lines[1]) == {"reference": "two", "bytes": 1 << 20}


def test_what_is_not_there(edgeinfer, removed):
    assert edgeinfer("rm", "gone").exit_code == 3


def test_a_model_must_be_named(edgeinfer, removed):
    assert edgeinfer("rm").exit_code == 2
    assert removed == []


def test_the_user_s_own_file_stays(edgeinfer, tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")

    outcome = edgeinfer("rm", str(path))

    assert outcome.exit_code == 2
    assert f"rm {path}" in outcome.stderr
    assert path.exists()
