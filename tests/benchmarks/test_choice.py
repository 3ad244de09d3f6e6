"""What a comparison of auto with the backends says."""

from __future__ import annotations

import json

import choice
import pytest
import record

from edgeinfer.planner.speed import Speed


def rate(turn_seconds: float) -> Speed:
    """Half a turn's time goes to the question."""
    return Speed(prefill=256 / (turn_seconds / 2), decode=128 / (turn_seconds / 2))


RATES = {
    "auto": [rate(2.2), rate(4.0), rate(2.0)],
    "native": [rate(2.0), rate(4.0), rate(2.0)],
    "other": [rate(3.0), rate(1.0), rate(3.0)],
}


def test_auto_is_compared_with_the_best_backend_round_by_round():
    row = choice.row(RATES, took="native", because="raced", model="m", threads=2)

    assert row["best"] == "native"
    assert row["second"] == "other 3.00"
    assert row["slower"] == pytest.approx(0.0)
    assert (row["best_turn"], row["auto_turn"]) == (pytest.approx(2.0), pytest.approx(2.2))
    assert row["rates"]["auto"][0] == {"prefill": RATES["auto"][0].prefill, "decode": 128 / 1.1}


def test_a_slower_choice_shows():
    rates = {**RATES, "auto": RATES["other"]}

    assert choice.row(rates, took="other", because="", model="m", threads=2)[
        "slower"
    ] == pytest.approx(0.5)


def test_a_model_measured_again_replaces_its_row(monkeypatch, tmp_path):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(choice, "RESULT", tmp_path / "choice.json")
    rows = [
        choice.row(RATES, took="native", because=because, model=model, threads=2)
        for model, because in [("a", "raced"), ("b", "raced"), ("a", "predicted")]
    ]

    choice.keep(rows[:2])
    choice.keep(rows[2:])

    kept = json.loads((tmp_path / "choice.json").read_text())["rows"]
    assert [(row["model"], row["because"]) for row in kept] == [("a", "predicted"), ("b", "raced")]
