"""The table of boards, computers and phones."""

from __future__ import annotations

from itertools import pairwise

import pytest

from edgeinfer.device import known, measured
from edgeinfer.errors import NotFoundError

GIB = 1 << 30


@pytest.mark.parametrize("name", known.names())
def test_every_device_is_plausible(name):
    device = known.load(name)

    assert 0 < device.memory_budget < device.memory_total
    assert 0 < device.threads <= device.batch_threads == device.physical_cores
    assert device.isas[-1] == "scalar"
    assert device.page_size in (4096, 16384)


@pytest.mark.parametrize("name", known.names())
def test_more_threads_are_never_slower_and_no_byte_is_read_faster_than_memory_allows(name):
    device = known.load(name)
    points = measured.ceilings(device).points

    assert [point.threads for point in points] == list(range(1, device.physical_cores + 1))
    for before, after in pairwise(points):
        assert before.stream_bytes_per_second <= after.stream_bytes_per_second
        assert before.int8_macs_per_second < after.int8_macs_per_second
    assert 1e9 < points[0].stream_bytes_per_second < 120e9  # no memory here is wider


def test_every_figure_says_where_it_is_from():
    facts = known._facts()

    for table in ("cores", "chips"):
        assert all(len(row["source"]) > 10 for row in facts[table].values())
    used = {row["chip"] for row in facts["devices"].values()}
    assert used == set(facts["chips"])
    kinds = {kind for chip in facts["chips"].values() for kind, _, _ in chip["cores"]}
    assert kinds <= set(facts["cores"])


def test_a_raspberry_pi_5():
    device = known.load("RPi5-8GB")

    assert device.name == "Raspberry Pi 5, 8 GB"
    assert device.cpu == "Cortex-A76"
    assert device.isas == ("neon_dotprod", "neon", "scalar")
    assert device.page_size == 16384
    assert 7 * GIB < device.memory_budget < 8 * GIB
    # Four cores of two dot products of 16 at 2.4 GHz.
    assert device.ceilings.at(4).int8_macs_per_second == pytest.approx(4 * 2 * 16 * 2.4e9)
    assert device.ceilings.at(4).stream_bytes_per_second == 10.5e9


def test_a_phone_decodes_on_its_fast_cores_and_reads_prompts_on_all():
    device = known.load("galaxy-s24")

    assert (device.threads, device.batch_threads) == (6, 8)
    assert device.isas == ("neon_i8mm", "neon_dotprod", "neon", "scalar")
    fast, all_cores = (device.ceilings.at(n).int8_macs_per_second for n in (6, 8))
    assert all_cores - fast == pytest.approx(2 * 16 * 2.3e9)  # the two small cores


def test_an_unknown_device_is_told_with_near_misses():
    with pytest.raises(NotFoundError, match="rpi5_8gb") as caught:
        known.load("rpi5_8gb")

    assert "rpi5-8gb" in str(caught.value.hint)
