"""``edgeinfer ps``."""

from __future__ import annotations

import json
import os

import psutil
import pytest

from edgeinfer.planner.plan import Rejection
from edgeinfer.runtime.running import Entry, Listed
from support.fake_model import fake_plan


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEINFER_HOME", str(tmp_path))


@pytest.fixture
def loaded():
    from dataclasses import replace

    plan = replace(
        fake_plan(),
        chosen_because="raced: 50 tokens/s",
        rejected=(Rejection(backend="other", reason="slower by 2x"),),
    )
    item = Listed(replace(Entry.of(plan, model="smollm2", path="/m.gguf"), loaded=0.0))
    yield item
    item.remove()


def test_nothing_is_loaded(edgeinfer):
    outcome = edgeinfer("ps")

    assert (outcome.exit_code, outcome.stdout) == (0, "")
    assert "no model is loaded" in outcome.stderr
    assert json.loads(edgeinfer("ps", "--json").stdout) == []


def test_records_have_what_the_process_takes_and_why_the_backend_was_chosen(edgeinfer, loaded):
    loaded.update(context_used=100, tokens_per_second=42.5)

    (record,) = json.loads(edgeinfer("ps", "--json").stdout)
    resident, age = record.pop("resident_bytes"), record.pop("age_seconds")
    assert record == {
        "pid": os.getpid(),
        "model": "smollm2",
        "path": "/m.gguf",
        "backend": "fake",
        "quant": "none",
        "chosen_because": "raced: 50 tokens/s",
        "rejected": [{"backend": "other", "reason": "slower by 2x"}],
        "context": 512,
        "context_used": 100,
        "tokens_per_second": 42.5,
    }
    assert resident == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    assert age > 1e9


def test_of_a_model_that_is_measured_no_context_is_shown(edgeinfer, loaded):
    loaded.update(context_used=None, tokens_per_second=None)

    assert " -/512 " in edgeinfer("ps").stdout


def test_people_read_a_table(edgeinfer, loaded):
    loaded.update(context_used=100, tokens_per_second=42.54)

    heads, row = edgeinfer("ps").stdout.splitlines()
    assert heads.split() == [
        "PID",
        "MODEL",
        "BACKEND",
        "MEMORY",
        "CONTEXT",
        "TOKENS/S",
        "AGE",
        "WHY",
    ]
    assert row.split()[:3] == [str(os.getpid()), "smollm2", "fake"]
    assert "  100/512  42.5      " in row
    assert row.endswith(" d  raced: 50 tokens/s")
