"""Plans say in a few lines what was chosen, what it takes, and how fast it will be."""

from __future__ import annotations

from dataclasses import replace

from edgeinfer.planner import llamacpp, plan_model
from edgeinfer.planner.paces import llamacpp_pace
from edgeinfer.planner.plan import Rejection


class LlamaCpp:
    """What llama.cpp takes, as its backend says it."""

    footprint = staticmethod(llamacpp.footprint)
    pace = staticmethod(llamacpp_pace)


def test_the_choice_the_memory_and_the_speed_are_explained(header, device):
    plan = plan_model(header(), device=device)
    plan = replace(
        plan,
        chosen_because="measured before",
        rejected=(Rejection(backend="other", reason="slower by 2x"),),
    )

    lines = plan.explain().splitlines()

    assert lines[:2] == ["native backend: measured before", "not other: slower by 2x"]
    assert "context 4096, f16 cache" in lines[2]
    assert lines[3].startswith("predicted ")
    assert "with a full context" in lines[3]


def test_speeds_of_an_unknown_machine_are_not_made_up(header, device):
    plan = plan_model(header(), device=replace(device, ceilings=None))

    assert "predicted" not in plan.explain()
    assert plan.to_json()["decode_tokens_per_second"] is None


def test_pages_that_the_system_may_take_back_do_not_count_against_the_budget(header, device):
    model = header(width=1024, ff=4096, layers=8, embedding="q4_0")
    desktop = replace(device, isas=("avx2", "scalar"))

    plan = plan_model(model, device=desktop, backend="llamacpp", predictor=LlamaCpp())

    assert plan.reclaimable_bytes > plan.weights_bytes / 3
    assert "may take them back" in plan.explain()
    tight = plan_model(
        model,
        device=desktop,
        memory=plan.needed_bytes,
        context=plan.context,
        predictor=LlamaCpp(),
    )
    assert tight.fits
    assert tight.total_bytes > tight.budget_bytes
