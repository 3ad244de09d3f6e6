"""What is remembered of speeds, for how long, and what makes it doubtful; measuring one."""

from __future__ import annotations

import time
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgeinfer.backends import fake
from edgeinfer.backends.base import ModelFiles
from edgeinfer.device.detect import detect
from edgeinfer.device.pressure import Pressure
from edgeinfer.device.thermal import ThermalState
from edgeinfer.planner.speed import Speed
from edgeinfer.runtime import model as model_module
from edgeinfer.runtime.model import Model, Parts
from edgeinfer.runtime.speeds import Expectation, Setting, Speeds, measure
from edgeinfer.runtime.watch import Machine, Watch
from edgeinfer.types import Timings
from support.fake_model import byte_tokenizer, fake_plan

SPEED = Speed(prefill=400.0, decode=20.0)
HOUR, DAY = 3600.0, 86400.0
# An answer as fast as that.
AS_EXPECTED = Timings(
    prompt_tokens=128, new_tokens=33, prefill_seconds=0.32, decode_steps=32, step_seconds=0.05
)


@pytest.fixture
def setting(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x")
    return Setting.of("1", path, detect(), fake_plan())


@pytest.fixture
def speeds_after(tmp_path):
    def make(seconds=0.0):
        return Speeds(tmp_path / "speeds.json", clock=lambda: 1e9 + seconds)

    return make


@pytest.mark.parametrize("changed", [f.name for f in fields(Setting)])
def test_a_speed_is_recalled_of_the_very_same_setting_only(setting, speeds_after, changed):
    speeds_after().remember(setting, SPEED)

    assert speeds_after().recall(setting) == SPEED
    assert speeds_after().recall(replace(setting, **{changed: "another"})) is None


@pytest.mark.parametrize(
    ("steady", "after", "known"),
    [
        (True, 29 * DAY, True),
        (True, 31 * DAY, False),
        (True, -31 * DAY, False),
        (False, 500, True),
        (False, 700, False),
    ],
)
def test_a_speed_is_kept_for_a_month_and_a_disturbed_one_for_minutes(
    setting, speeds_after, steady, after, known
):
    speeds_after().remember(setting, SPEED, steady=steady)

    assert (speeds_after(after).recall(setting) == SPEED) is known


@pytest.mark.parametrize(
    ("changes", "used", "doubted"),
    [
        ({}, 160, False),
        ({"step_seconds": 0.07, "prefill_seconds": 0.45}, 160, False),
        ({"step_seconds": 0.08}, 160, True),
        ({"step_seconds": 0.03}, 160, True),
        ({"prefill_seconds": 0.5}, 160, True),
        ({"prefill_seconds": 0.2}, 160, True),
        # Too short, too far into a context, guessed ahead, or mostly read before.
        ({"step_seconds": 0.08, "decode_steps": 31}, 160, False),
        ({"step_seconds": 0.08}, 513, False),
        ({"step_seconds": 0.08, "drafted_tokens": 1}, 160, False),
        ({"prefill_seconds": 0.5, "cached_tokens": 1}, 160, False),
    ],
)
def test_answers_of_another_speed_make_what_is_remembered_doubtful(
    setting, speeds_after, changes, used, doubted
):
    other = replace(setting, backend="other")
    for each in (setting, other):
        speeds_after().remember(each, SPEED)
    later = speeds_after(HOUR)
    expected = Expectation(speeds=later, settings=(setting, other), speed=SPEED)

    assert expected.answered(replace(AS_EXPECTED, **changes), used) is doubted
    for each in (setting, other):
        assert later.is_doubted(each) is doubted
        assert (later.recall(each) is None) is doubted


def test_what_was_just_measured_is_not_doubted(setting, speeds_after):
    speeds_after().remember(setting, SPEED)

    assert not speeds_after(500).doubt([setting])
    assert speeds_after(500).recall(setting) == SPEED
    assert speeds_after(700).doubt([setting])
    assert speeds_after(700).recall(setting) is None


def test_a_measurement_ends_the_doubt(setting, speeds_after):
    assert speeds_after().doubt([setting])  # a prediction: nothing was measured
    assert speeds_after().is_doubted(setting)
    speeds_after().remember(setting, SPEED)
    assert not speeds_after().is_doubted(setting)
    assert speeds_after().recall(setting) == SPEED


@pytest.mark.parametrize(
    ("real", "heat", "doubted"),
    [(0.05, False, False), (0.1, False, True), (0.1, True, False)],
)
def test_a_model_tells_of_its_answers_unless_heat_slows_it(
    setting, speeds_after, clock, monkeypatch, real, heat, doubted
):
    machine = Machine(
        meter=SimpleNamespace(read=Pressure), thermal=lambda: ThermalState(throttled=heat)
    )
    # Five seconds from look to look.
    watch = partial(Watch, machine=lambda: machine, clock=lambda: 100 * time.perf_counter())
    monkeypatch.setattr(model_module, "Watch", watch)
    engine = fake.FakeBackend(reply=lambda _: b"x" * 40, seconds_per_token=real).load(
        ModelFiles(path=Path(), format="fake"), fake_plan()
    )
    expectation = Expectation(speeds=speeds_after(), settings=(setting,), speed=SPEED)
    parts = Parts(
        engine=engine, tokenizer=byte_tokenizer(), plan=fake_plan(), expectation=expectation
    )

    with Model(parts) as model:
        for event in model.generate(
            "hi", stream=True, max_tokens=40, temperature=0, speculate="off"
        ):
            last = event.timings
            clock(7.0)  # who reads the stream takes long: that is not the backend's doing
        assert last.step_seconds == pytest.approx(real)
    assert speeds_after().is_doubted(setting) is doubted


@pytest.fixture
def clock(monkeypatch):
    """Time passes only by sleeping, and by calling this."""
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "sleep", sleep)
    return sleep


@pytest.mark.parametrize("seconds_per_token", [0.001, 0.2])
def test_measuring_keeps_to_its_time_and_is_right(clock, seconds_per_token):
    backend = fake.FakeBackend(seconds_per_token=seconds_per_token)
    engine = backend.load(ModelFiles(path=Path(), format="fake"), fake_plan())

    speed, steady = measure(engine, fake_plan(), 0.5)

    assert time.perf_counter() <= 0.5 + 3 * seconds_per_token
    assert speed.decode == pytest.approx(1 / seconds_per_token)
    assert speed.prefill == pytest.approx(1 / seconds_per_token)
    assert steady


@pytest.mark.parametrize(
    ("disturbed", "seconds", "steady"),
    [
        (range(0), 0.0, True),
        (range(1, 2), 20.0, False),  # so that there is no time for more
        (range(2, 3), 0.5, False),  # the only prompt there is time for then
        (range(3, 4), 0.5, True),  # one of two
        (range(10, 12), 0.5, True),  # a few answers
        (range(15, 60), 0.002, False),  # most of them
    ],
)
def test_a_measurement_tells_whether_it_was_disturbed(clock, disturbed, seconds, steady):
    engine = fake.FakeBackend(seconds_per_token=0.001).load(
        ModelFiles(path=Path(), format="fake"), fake_plan()
    )
    step, count = engine.step, iter(range(1000))

    def slowed(batch):
        if next(count) in disturbed:
            clock(seconds)
        return step(batch)

    engine.step = slowed

    assert measure(engine, fake_plan(), 1.0)[1] is steady
