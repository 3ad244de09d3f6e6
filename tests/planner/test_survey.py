"""Surveys: which combinations there are, which one is picked, and what speaks against others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgeinfer.device.ceilings import Ceilings, CeilingsByThreads
from edgeinfer.planner.footprint import Predictor
from edgeinfer.planner.outline import Outline
from edgeinfer.planner.planner import Native, requantised
from edgeinfer.planner.survey import Wish, survey
from edgeinfer.planner.variants import Variant

GIB = 1 << 30


def ceilings(stream: float, macs: float) -> CeilingsByThreads:
    point = Ceilings(threads=1, stream_bytes_per_second=stream, int8_macs_per_second=macs)
    return CeilingsByThreads(points=(point,), source="made up")


class Slow(Native):
    """As the native backend, at half its pace."""

    def pace(self, model):
        pace = Native.pace(model)
        return replace(pace, decode=pace.decode / 2, prefill=pace.prefill / 2)


@pytest.fixture
def forms(large):
    """A 7B model in f16, q8_0 and q4_0."""
    whole = Outline.of_gguf(large)
    smaller = [requantised(whole, kind, "q8_0") for kind in ("q8_0", "q4_0")]
    return [Variant(outline=outline, how=outline.quant) for outline in (whole, *smaller)]


@pytest.fixture
def run(forms, device):
    """``run(stream=..., **wish)`` surveys the forms on a fast machine with 64 GiB."""

    def surveyed(stream=500e9, macs=2e12, backends=None, **wish):
        machine = replace(device, memory_budget=64 * GIB, ceilings=ceilings(stream, macs))
        return survey(forms, backends or {"native": Native()}, machine, Wish(**wish))

    return surveyed


def test_native_predicts():
    assert isinstance(Native(), Predictor)


def test_each_form_backend_cache_and_context_is_a_row(run):
    found = run(backends={"native": Native(), "slow": Slow()})

    # Trained for 4096 tokens, which is the wanted context as well.
    assert len(found.rows) == 3 * 2 * 3 * 2
    assert {row.plan.context for row in found.rows} == {2048, 4096}


def test_what_is_asked_for_is_the_only_one(run):
    found = run(context=1000, kv_types=("q8_0", "q4_0"))

    assert {(r.plan.context, r.plan.kv_types) for r in found.rows} == {(1000, "q8_0/q4_0")}


def test_the_most_bits_up_to_eight_are_picked_where_there_is_room(run):
    found = run()

    assert found.pick.plan.quant == "q8_0"
    assert found.pick.against == ""
    against = {row.plan.quant: row.against for row in found.rows if row.plan.context == 4096}
    assert against == {"f16": "no better than 8 bits", "q8_0": "", "q4_0": "fewer bits"}


def test_fewer_bits_are_picked_where_more_are_too_slow(run):
    found = run(stream=60e9)

    assert found.pick.plan.quant == "q4_0"
    slow = next(row for row in found.rows if row.plan.quant == "q8_0")
    assert slow.against == "under 10 tokens/s"


def test_what_does_not_fit_says_by_how_much(run):
    found = run(memory=8 * GIB)

    assert found.pick.plan.quant == "q8_0"
    assert (found.pick.plan.context, found.pick.plan.kv_types) == (4096, "q8_0")
    too_large = next(row for row in found.rows if row.plan.quant == "f16")
    assert too_large.against.startswith("needs ")
    assert too_large.against.endswith(" more")


def test_fewer_bits_in_the_cache_are_better_than_in_the_weights(run):
    found = run(memory=9 * GIB)

    assert (found.pick.plan.quant, found.pick.plan.kv_types) == ("q8_0", "f16")


def test_the_context_is_given_up_last(run):
    assert run(memory=4608 << 20).pick.plan.kv_types == "q4_0"
    assert run(memory=4608 << 20).pick.plan.context == 4096
    assert run(memory=4200 << 20).pick.plan.context == 2048


def test_nothing_fits(run):
    found = run(memory=1 * GIB)

    assert found.pick is None
    assert all(row.against for row in found.rows)


def test_of_two_backends_the_faster_is_picked(run):
    found = run(backends={"slow": Slow(), "native": Native()})

    assert found.pick.plan.backend == "native"
    slower = next(
        row
        for row in found.rows
        if row.plan.backend == "slow" and row.variant is found.pick.variant
    )
    assert slower.against.endswith("x slower")


def test_a_machine_that_was_never_measured_is_guessed_cautiously(forms, device):
    machine = replace(device, memory_budget=64 * GIB, ceilings=None)

    found = survey(forms, {"native": Native()}, machine, Wish())

    assert "cautious" in found.ceilings_source
    assert all(row.plan.decode_tokens_per_second < 5 for row in found.rows)
