"""What is told while a model generates, on a fake machine with a fake clock."""

from __future__ import annotations

import logging

import pytest

from edgeinfer.device.pressure import Pressure
from edgeinfer.device.thermal import ThermalState
from edgeinfer.runtime import model as model_module
from edgeinfer.runtime.running import Entry, Listed, listed
from edgeinfer.runtime.watch import CHECK_EVERY, EVERY, Machine, Watch
from edgeinfer.types import Timings
from support.fake_model import fake_model, fake_plan

SHORT = Pressure(stalled=0.4, reason="40% of the time all wait for it")
HOT = ThermalState(celsius=86.0, throttled=True, reasons=("soft temperature limit",))
TIMINGS = Timings(
    prompt_tokens=1,
    cached_tokens=0,
    new_tokens=11,
    decode_steps=10,
    prefill_seconds=1.0,
    decode_seconds=2.0,
)


class Fake:
    """A machine, a clock and a sequence."""

    def __init__(self, pressure=Pressure(), heat=ThermalState()):  # noqa: B008 - frozen
        self.now = 100.0
        self.pressure, self.heat = pressure, heat
        self.reads = 0
        self.cached: list[int] = []

    def watch(self, listed=None):
        machine = Machine(meter=self, thermal=lambda: self.heat)
        return Watch(listed, machine=lambda: machine, clock=lambda: self.now)

    def read(self):
        self.reads += 1
        return self.pressure

    def run(self, watch, seconds, tokens_per_second=8):
        for _ in range(seconds * tokens_per_second):
            self.now += 1 / tokens_per_second
            self.cached.append(0)
            watch.step(self)


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEINFER_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def entry(home):
    return Listed(Entry.of(fake_plan(), model="m", path="/m.gguf"))


@pytest.mark.parametrize(
    ("fake", "words"),
    [(Fake(pressure=SHORT), "40% of the time"), (Fake(heat=HOT), "soft temperature limit")],
    ids=["memory", "heat"],
)
def test_what_slows_generating_is_told_once(fake, words, caplog):
    watch = fake.watch()
    with caplog.at_level(logging.WARNING, "edgeinfer"):
        fake.run(watch, 60)

    (warning,) = caplog.records
    assert words in warning.getMessage()


def test_a_machine_in_order_is_no_news(caplog):
    fake = Fake()
    with caplog.at_level(logging.INFO, "edgeinfer"):
        fake.run(fake.watch(), 60)

    assert caplog.records == []


def test_the_machine_is_looked_at_seldom():
    fake = Fake()
    watch = fake.watch()

    fake.run(watch, int(CHECK_EVERY) - 1)
    assert fake.reads == 0  # a short answer pays nothing
    fake.run(watch, 51)
    assert fake.reads == 55 // CHECK_EVERY


def test_the_report_says_what_was_read(caplog):
    fake = Fake(pressure=Pressure(stalled=0.02), heat=ThermalState(celsius=61.2))
    watch = fake.watch()
    fake.run(watch, 12)
    with caplog.at_level(logging.INFO, "edgeinfer"):
        watch.finished(fake, TIMINGS)

    (line,) = [record.getMessage() for record in caplog.records]
    assert line == "while generating: heat 61 degrees, time lost to short memory 2%"


def test_the_list_is_updated_once_a_second_and_at_the_end(entry, monkeypatch):
    writes = []
    monkeypatch.setattr(Listed, "_write", lambda self: writes.append(self.entry))
    fake = Fake()
    watch = fake.watch(entry)

    fake.run(watch, 10)
    assert len(writes) == 10 / EVERY
    assert writes[-1].context_used == 80
    assert writes[-1].tokens_per_second == 8

    watch.finished(fake, TIMINGS)
    assert writes[-1].tokens_per_second == 5


def test_a_model_watches_every_step_and_leaves_the_list(entry, monkeypatch):
    fake = Fake(pressure=SHORT)
    watch = fake.watch(entry)
    monkeypatch.setattr(model_module, "Watch", lambda listed, **_: watch)
    step = watch.step
    steps = []
    monkeypatch.setattr(watch, "step", lambda sequence: (steps.append(sequence), step(sequence)))

    with fake_model("abc", batch=4) as model:
        done = model.generate([1] * 9, max_tokens=5, speculate="off")
        assert len(steps) == 3 + 4  # the prompt in chunks, then a token each; the first is free
        (found,) = listed()
        assert found.context_used == 13
        assert found.tokens_per_second == done.timings.decode_tokens_per_second

    assert listed() == []
