"""What sysctl tells of Macs we do not have; see trees/sysctl_*.txt."""

from __future__ import annotations

import pytest

from edgeinfer.device import macos
from edgeinfer.device.profile import Cache
from support.trees import recorded

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def mac(name: str, *, machine: str = "arm64", **changes: str):
    values = macos.parse(recorded(name)["sysctl"]) | changes
    return macos.profile_of(values, machine=machine, available=5 * GIB)


def test_a_macbook_air_m1():
    device = mac("sysctl_m1")

    assert (device.name, device.cpu) == ("MacBookAir10,1", "Apple M1")
    assert (device.os, device.machine) == ("macos", "aarch64")
    assert device.isas == ("neon_dotprod", "neon", "scalar")
    assert (device.logical_cores, device.physical_cores, device.performance_cores) == (8, 8, 4)
    assert (device.threads, device.batch_threads) == (4, 8)
    assert device.memory_total == 8 * GIB
    assert device.memory_budget == device.memory_available == 5 * GIB
    assert device.page_size == 16 * KIB
    assert device.caches == (  # of the fast cores, not those of the keys without a level
        Cache(level=1, kind="data", bytes=128 * KIB, shared_by=1),
        Cache(level=1, kind="instruction", bytes=192 * KIB, shared_by=1),
        Cache(level=2, kind="unified", bytes=12 * MIB, shared_by=4),
    )


def test_a_macbook_pro_m4_pro():
    device = mac("sysctl_m4_pro")

    assert device.isas == ("neon_i8mm", "neon_dotprod", "neon", "scalar")
    assert (device.physical_cores, device.threads, device.batch_threads) == (14, 10, 14)
    assert device.caches[-1] == Cache(level=2, kind="unified", bytes=16 * MIB, shared_by=5)
    assert device.memory_total == 64 * GIB


def test_an_intel_mac_has_one_kind_of_core():
    values = {
        "hw.physicalcpu": "4",
        "hw.logicalcpu": "8",
        "hw.l1dcachesize": "32768",
        "hw.l2cachesize": "262144",
        "hw.l3cachesize": "8388608",
        "hw.pagesize": "4096",
        "hw.optional.avx2_0": "1",
        "hw.optional.fma": "1",
        "hw.optional.f16c": "1",
    }

    device = macos.profile_of(values, machine="x86_64", available=GIB)

    assert device.machine == "x86_64"
    assert device.isas == ("avx2", "scalar")
    assert (device.performance_cores, device.threads, device.batch_threads) == (4, 4, 4)
    assert device.caches[-1] == Cache(level=3, kind="unified", bytes=8 * MIB, shared_by=8)
    assert device.page_size == 4096


@pytest.mark.parametrize("isas", [("neon", "scalar"), ("scalar",)])
def test_what_the_extension_found_counts_more_than_the_flags(isas):
    values = macos.parse(recorded("sysctl_m1")["sysctl"])

    assert macos.profile_of(values, machine="arm64", available=1, isas=isas).isas == isas


def test_values_with_colons_and_without_any():
    assert macos.parse("hw.a: 1: 2\nhw.osenvironment: \nno value\n") == {
        "hw.a": "1: 2",
        "hw.osenvironment": "",
    }
