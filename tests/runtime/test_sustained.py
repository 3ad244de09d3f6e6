"""How speed holds: a fake engine on a fake clock, and a fake thermometer."""

from __future__ import annotations

from edgeinfer.backends import fake
from edgeinfer.device.thermal import ThermalState
from edgeinfer.runtime.benchmark import Bench, Test
from edgeinfer.runtime.sustained import Sustained, Window, sustain

COOL = ThermalState()


class Machine:
    """Takes a while for a token; gets slower after a time."""

    def __init__(self, seconds=0.125, hot_after=float("inf"), slower=2.0):
        self.engine = fake.FakeEngine(fake.FakeBackend(), 64)
        self.now = 0.0
        self.lengths = []
        step = self.engine.step

        def timed(batch):
            self.now += seconds * (slower if self.now >= hot_after else 1)
            self.lengths.append(len(self.engine.save_state(batch[0].sequence)) // 4)
            return step(batch)

        self.engine.step = timed
        self.hot_after = hot_after

    def thermal(self):
        if self.now < self.hot_after:
            return ThermalState(celsius=50.0)
        return ThermalState(celsius=81.0, throttled=True, reasons=("frequency capped",))

    def run(self, seconds, depth=0):
        bench, test = Bench(self.engine, batch=16), Test(new_tokens=4, depth=depth)
        return sustain(bench, test, seconds, thermal=self.thermal, clock=lambda: self.now)


def test_windows_are_a_second_each():
    found = Machine().run(10)

    assert [window.tokens for window in found.windows] == [8] * 10
    assert [window.tokens_per_second for window in found.windows] == [8.0] * 10
    assert (found.burst, found.last, found.least, found.kept) == (8.0, 8.0, 8.0, 1.0)
    assert (found.throttled, found.reasons, found.celsius) == (False, (), 50.0)


def test_a_window_of_a_slow_model_is_a_token():
    found = Machine(seconds=3.0).run(7)

    assert [(window.tokens, window.seconds) for window in found.windows] == [(1, 3.0)] * 3


def test_heat_shows_in_the_end_and_in_the_flag():
    found = Machine(hot_after=20.0).run(40)

    assert (found.burst, found.last, found.least, found.kept) == (8.0, 4.0, 4.0, 0.5)
    assert (found.throttled, found.reasons, found.celsius) == (True, ("frequency capped",), 81.0)


def test_one_slow_second_is_the_least_and_not_the_end():
    tokens = [10] * 29 + [2]
    windows = tuple(Window(seconds=1.0, tokens=count, thermal=COOL) for count in tokens)

    found = Sustained(windows=windows)
    assert (found.burst, found.last, found.least, found.celsius) == (10, 10, 2, None)


def test_the_context_grows_as_in_the_test_and_no_further():
    machine = Machine()
    machine.run(3, depth=5)

    assert set(machine.lengths[machine.lengths.index(5) :]) == {5, 6, 7, 8}
