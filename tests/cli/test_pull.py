"""``edgeinfer pull`` (the downloads themselves: tests/store)."""

from __future__ import annotations

import json

import pytest


@pytest.fixture(autouse=True)
def empty_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("EDGEINFER_HOME", str(tmp_path / "edgeinfer"))


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model-q4_0.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    return path


def test_a_path_is_printed_for_scripts_and_the_rest_for_people(edgeinfer, model):
    outcome = edgeinfer("pull", str(model))

    assert outcome.stdout == f"{model}\n"
    assert "104 B" in outcome.stderr


def test_json(edgeinfer, model):
    record = json.loads(edgeinfer("pull", str(model), "--json").stdout)

    assert record == {
        "reference": str(model),
        "source": "local",
        "format": "gguf",
        "quant": "Q4_0",
        "bytes": 104,
        "path": str(model),
    }


@pytest.mark.parametrize(
    ("reference", "code"),
    [("nothing.gguf", 3), ("smolm2", 3), ("smollm2", 3), ("pypi:/", 2), ("", 2), ("ollama://x", 3)],
)
def test_what_cannot_be_had_offline(edgeinfer, reference, code):
    outcome = edgeinfer("pull", reference, "--offline", "--json")

    assert outcome.exit_code == code
    assert json.loads(outcome.stdout)["error"]["message"]
    assert "error:" in outcome.stderr
