"""What the machine can do at most: measured, remembered, found again or not."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from edgeinfer.device import ceilings as speeds
from edgeinfer.device import detect, known, measured
from edgeinfer.device.ceilings import Ceilings, CeilingsByThreads, interpolated
from edgeinfer.device.profile import Cache

MIB, GIB = 1 << 20, 1 << 30


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEINFER_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def machine():
    return replace(known.load("rpi5-8gb"), ceilings=None, cpus=(0, 1, 2, 3))


@pytest.fixture
def quick(monkeypatch):
    """Replaces measuring by known numbers; lists what was measured."""
    asked = []

    def measure(threads, seconds, stream_bytes):
        asked.append((threads, seconds, stream_bytes))
        return Ceilings(
            threads=threads,
            stream_bytes_per_second=4e9 * min(threads, 2),
            int8_macs_per_second=1e10 * threads,
        )

    monkeypatch.setattr(speeds, "measure", measure)
    return asked


def test_this_machine_is_measured_in_less_than_three_seconds():
    device = detect()
    start = time.process_time()

    found = measured.measure(device)

    # Processor time, as others may hold the processor meanwhile.
    assert time.process_time() - start < 3 * found.points[-1].threads
    assert found.points[0].threads == 1
    assert all(point.stream_bytes_per_second > 1e8 for point in found.points)
    assert all(point.int8_macs_per_second > 1e8 for point in found.points)
    assert measured.ceilings(device) == found


def test_what_was_measured_is_found_again(machine, quick):
    assert measured.ceilings(machine) is None

    found = measured.measure(machine)

    assert measured.ceilings(machine) == found
    assert [point.threads for point in found.points] == [1, 2, 4]


def test_where_memory_is_slow_to_make_less_time_is_left_to_measure(machine, monkeypatch):
    now, asked = [0.0], []

    def measure(threads, seconds, stream_bytes):
        asked.append(seconds)
        now[0] += seconds + 0.5  # half a second until all of it is written
        return Ceilings(threads=threads, stream_bytes_per_second=1e9, int8_macs_per_second=1e9)

    monkeypatch.setattr(speeds, "measure", measure)
    monkeypatch.setattr(measured.time, "perf_counter", lambda: now[0])

    measured.measure(machine)

    assert asked == sorted(asked, reverse=True)
    assert now[0] < 3


@pytest.mark.parametrize(
    "change",
    [
        {"cpu": "Cortex-A72"},
        {"name": "another board"},
        {"cpus": (0, 1)},
        {"cpus": (4, 5, 6, 7)},  # as many, but others
        {"usable_cpus": 1.5},
        {"logical_cores": 8},
        {"memory_total": 16 * GIB},
    ],
    ids=str,
)
def test_another_machine_or_mask_does_not_read_it(machine, quick, change):
    measured.measure(machine)

    assert measured.ceilings(replace(machine, **change)) is None


def test_another_kernel_set_does_not_read_it(machine, quick, monkeypatch):
    measured.measure(machine)
    monkeypatch.setattr(measured, "isa_in_use", lambda: "another")

    assert measured.ceilings(machine) is None


def test_the_memory_that_is_left_just_now_does_not_matter(machine, quick):
    found = measured.measure(machine)

    assert measured.ceilings(replace(machine, memory_available=1, memory_budget=1)) == found


def test_a_known_board_is_not_looked_up_here(quick):
    board = known.load("rpi5-8gb")
    measured.measure(board)

    assert measured.ceilings(board) == board.ceilings


@pytest.mark.parametrize(
    "damage",
    [
        {"points": [], "source": "x"},
        {"points": [{"threads": 1}], "source": "x"},
        {"points": [{"threads": 1, "stream_bytes_per_second": "fast", "int8_macs_per_second": 1.0}],
         "source": "x"},
        {"points": 3, "source": "x"},
        {"points": [{"threads": 1, "stream_bytes_per_second": -1.0, "int8_macs_per_second": 1.0}],
         "source": "x"},
        {},
    ],
)  # fmt: skip
def test_a_damaged_record_is_none(home, machine, quick, damage):
    measured.measure(machine)
    path = home / "ceilings.json"
    (key,) = json.loads(path.read_text())
    path.write_text(json.dumps({key: damage}))

    assert measured.ceilings(machine) is None


@pytest.mark.parametrize(
    ("threads", "batch_threads", "counts"),
    [
        (1, None, [1]),
        (2, 2, [1, 2]),
        (4, 12, [1, 2, 4, 8, 12]),
        (6, 6, [1, 2, 4, 6]),
        (64, 64, [1, 4, 8, 16, 32, 64]),
    ],
)
def test_the_numbers_of_threads(machine, threads, batch_threads, counts):
    device = replace(machine, threads=threads, batch_threads=batch_threads)

    assert list(measured.thread_counts(device)) == counts


@pytest.mark.parametrize(
    ("cache", "budget", "size"),
    [
        (2 * MIB, 8 * GIB, 64 * MIB),
        (32 * MIB, 8 * GIB, 256 * MIB),
        (1024 * MIB, 64 * GIB, 512 * MIB),
        (32 * MIB, 200 * MIB, 50 * MIB),
        (2 * MIB, 0, 16 * MIB),
    ],
)
def test_what_is_read_is_larger_than_the_caches_but_leaves_memory(machine, cache, budget, size):
    caches = (Cache(level=2, kind="unified", bytes=cache, shared_by=4),)

    assert measured.stream_bytes(replace(machine, caches=caches, memory_budget=budget)) == size


def test_ceilings_between_the_measured_numbers_of_threads():
    two = CeilingsByThreads(
        points=(
            Ceilings(threads=1, stream_bytes_per_second=10.0, int8_macs_per_second=100.0),
            Ceilings(threads=4, stream_bytes_per_second=16.0, int8_macs_per_second=400.0),
        ),
        source="a test",
    )

    assert two.at(2) == Ceilings(
        threads=2, stream_bytes_per_second=12.0, int8_macs_per_second=200.0
    )
    assert two.at(9).stream_bytes_per_second == 16.0
    assert two.at(1) == two.points[0]


def test_a_line_is_level_beyond_its_ends():
    line = [(2, 5.0), (4, 9.0)]

    assert [interpolated(x, line) for x in (1, 2, 3, 4, 5)] == [5.0, 5.0, 7.0, 9.0, 9.0]
