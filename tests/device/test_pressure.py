"""Short memory, as Linux and macOS tell of it."""

from __future__ import annotations

import ctypes
import time

import pytest

from edgeinfer.device import pressure
from edgeinfer.device.pressure import LinuxMeter, MacMeter, Pressure
from support.trees import write

FULL = "some avg10=40.00 avg60=9.10 avg300=2.00 total=1\nfull avg10={} avg60=1 avg300=0 total=1\n"
V2 = {
    "proc/self/cgroup": "0::/service\n",
    "proc/self/mountinfo": "30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
}
V1 = {
    "proc/self/cgroup": "4:memory:/docker/abc\n",
    "proc/self/mountinfo": "31 25 0:27 /docker/abc /sys/fs/cgroup/memory rw - cgroup c memory\n",
}
GROUP = "sys/fs/cgroup/service"


@pytest.fixture
def meter_of(tmp_path):
    return lambda files: LinuxMeter(write(tmp_path, files))


def test_a_kernel_that_tells_nothing(meter_of):
    assert meter_of({}).read() == Pressure()
    assert not Pressure().short


@pytest.mark.parametrize(("share", "short"), [("0.00", False), ("9.99", False), ("10.00", True)])
def test_the_machine_is_short_when_all_wait_for_a_tenth_of_the_time(meter_of, share, short):
    found = meter_of({"proc/pressure/memory": FULL.format(share)}).read()

    assert found.stalled == pytest.approx(float(share) / 100)
    assert found.short is short


def test_a_group_may_be_short_where_the_machine_is_not(meter_of):
    files = {
        **V2,
        "proc/pressure/memory": FULL.format("0.50"),
        f"{GROUP}/memory.pressure": FULL.format("31.00"),
    }

    found = meter_of(files).read()
    assert found.stalled == 0.31
    assert found.reason == "31% of the time all wait for it"


@pytest.mark.parametrize(
    ("files", "counter", "text"),
    [
        (V2, f"{GROUP}/memory.events", "low 0\nhigh {}\nmax 0\noom 0\noom_kill 0\n"),
        (V2, f"{GROUP}/memory.events", "low 0\nhigh 0\nmax {}\noom 0\noom_kill 0\n"),
        (V1, "sys/fs/cgroup/memory/memory.failcnt", "{}\n"),
    ],
    ids=["v2 high", "v2 max", "v1"],
)
def test_without_stall_information_the_limits_are_counted(meter_of, tmp_path, files, counter, text):
    meter = meter_of({**files, counter: text.format(5000)})
    assert not meter.read().short  # what was before is of no interest

    (tmp_path / counter).write_text(text.format(5000 + pressure.MANY_HITS))
    assert meter.read().reason == "its control group ran into the limit 100 times"
    assert not meter.read().short


def test_hits_that_stall_nothing_are_the_page_caches(meter_of, tmp_path):
    events = tmp_path / f"{GROUP}/memory.events"
    stalls = {f"{GROUP}/memory.pressure": FULL.format("0.00")}
    meter = meter_of({**V2, **stalls, f"{GROUP}/memory.events": "high 0\n"})
    events.write_text("high 100000\n")

    assert not meter.read().short


@pytest.mark.parametrize(("level", "reason"), [(1, ""), (2, "high"), (4, "critical")])
def test_macos_has_levels(level, reason):
    def sysctlbyname(name, value, size, new, new_size):
        assert name == b"kern.memorystatus_vm_pressure_level"
        ctypes.cast(value, ctypes.POINTER(ctypes.c_int))[0] = level
        return 0

    found = MacMeter(sysctlbyname).read()
    assert found.reason.endswith(reason)
    assert found.short is bool(reason)


def test_a_mac_that_does_not_say_is_not_short():
    assert MacMeter(lambda *arguments: -1).read() == Pressure()


def test_reading_this_machine_is_cheap():
    meter = pressure.meter()
    times = []
    for _ in range(20):
        start = time.thread_time()
        meter.read()
        times.append(time.thread_time() - start)

    assert min(times) < 1e-3
