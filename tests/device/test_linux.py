"""What is read from /proc and /sys of machines we do not have; see trees/*.txt."""

from __future__ import annotations

import os
import sys

import pytest

from edgeinfer.device import linux
from edgeinfer.device.profile import Cache, DeviceProfile
from support.trees import lay_out, recorded

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@pytest.fixture
def profile_of(tmp_path):
    """Lays out a tree, with some files changed or (None) left out, and reads it."""

    def read(name: str, changes: dict[str, str | None] | None = None) -> DeviceProfile:
        return linux.detect(lay_out(tmp_path, name, changes))

    return read


def test_a_raspberry_pi_4(profile_of):
    device = profile_of("rpi4")

    assert device.name == "Raspberry Pi 4 Model B Rev 1.4"
    assert device.cpu == "Cortex-A72"
    assert device.machine == "aarch64"
    assert device.isas == ("neon", "scalar")
    assert (device.physical_cores, device.performance_cores, device.threads) == (4, 4, 4)
    assert device.memory_total == 3884360 * KIB
    assert device.memory_budget == device.memory_available == 3321984 * KIB
    assert device.memory_limit is None
    assert device.caches == ()  # this kernel does not tell
    assert device.page_size == 4096
    assert device.large_page_size is None


def test_a_raspberry_pi_5(profile_of):
    device = profile_of("rpi5")

    assert device.cpu == "Cortex-A76"
    assert device.isas == ("neon_dotprod", "neon", "scalar")
    assert device.caches[0] == Cache(level=1, kind="data", bytes=64 * KIB, shared_by=1)
    assert device.caches[-1] == Cache(level=3, kind="unified", bytes=2 * MIB, shared_by=4)
    assert device.page_size == 16 * KIB
    assert device.large_page_size == 32 * MIB


def test_a_hybrid_laptop_computes_on_its_fast_cores(profile_of):
    device = profile_of("hybrid_laptop")

    assert device.name == "LENOVO 21CBCTO1WW"
    assert device.cpu == "12th Gen Intel(R) Core(TM) i7-1260P"
    assert device.isas == ("avxvnni", "avx2", "scalar")
    assert device.logical_cores == 16
    assert device.physical_cores == 12
    assert device.performance_cores == 4
    assert device.threads == 4
    assert device.batch_threads == 12  # prompts are read by all cores, once each


def test_a_hybrid_laptop_where_performance_events_are_hidden(profile_of):
    device = profile_of("hybrid_elitebook")

    assert (device.logical_cores, device.physical_cores, device.performance_cores) == (20, 14, 6)
    assert (device.threads, device.batch_threads) == (6, 14)
    assert device.caches[-1] == Cache(level=3, kind="unified", bytes=24 * MIB, shared_by=20)


def test_firmware_that_tells_one_performance_for_all_leaves_it_to_the_clocks(profile_of):
    same = {f"sys/devices/system/cpu/cpu{cpu}/acpi_cppc/highest_perf": "64" for cpu in range(20)}
    slow = {
        f"sys/devices/system/cpu/cpu{cpu}/cpufreq/cpuinfo_max_freq": "3500000"
        for cpu in range(12, 20)
    }

    assert profile_of("hybrid_elitebook", same | slow).performance_cores == 6


def test_the_cores_that_amd_prefers_are_of_the_same_kind_as_the_others(profile_of):
    cpuinfo = recorded("hybrid_elitebook")["proc/cpuinfo"].replace("GenuineIntel", "AuthenticAMD")
    clocks = {
        f"sys/devices/system/cpu/cpu{cpu}/cpufreq/cpuinfo_max_freq": "5000000" for cpu in range(20)
    }

    assert profile_of("hybrid_elitebook", {"proc/cpuinfo": cpuinfo} | clocks).threads == 14


def test_a_pixel_8(profile_of):
    device = profile_of("pixel8")

    assert device.cpu == "Cortex-X3 + Cortex-A715 + Cortex-A510"
    assert device.isas == ("neon_i8mm", "neon_dotprod", "neon", "scalar")
    assert (device.physical_cores, device.threads, device.batch_threads) == (9, 5, 9)


def test_makers_other_than_arm_are_named(profile_of):
    apple = recorded("pixel8")["proc/cpuinfo"].replace("0x41", "0x61")

    assert profile_of("pixel8", {"proc/cpuinfo": apple}).cpu == (
        "Apple part 0xd4e + Apple part 0xd4d + Apple part 0xd46"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_pages_of_this_machine():
    assert linux.detect().page_size == os.sysconf("SC_PAGE_SIZE")


def test_no_large_pages_where_they_are_off(profile_of):
    off = {"sys/kernel/mm/transparent_hugepage/enabled": "always madvise [never]"}

    assert profile_of("rpi5", off).large_page_size is None


def test_a_phone_leaves_its_small_cores_alone(profile_of):
    device = profile_of("android_phone")

    assert device.cpu == "Cortex-X4 + Cortex-A720 + Cortex-A520"
    assert device.isas == ("neon_i8mm", "neon_dotprod", "neon", "scalar")
    assert device.physical_cores == 8
    assert device.performance_cores == device.threads == 6
    assert device.batch_threads == 8


def test_clocks_tell_the_fast_cores_where_the_kernel_knows_no_capacity(profile_of):
    clocks = {
        f"sys/devices/system/cpu/cpu{cpu}/cpufreq/cpuinfo_max_freq": "1800000"
        if cpu < 2
        else "1000000"
        for cpu in range(4)
    }

    assert profile_of("rpi4", clocks).performance_cores == 2


def test_a_container_on_cgroup_v2(profile_of):
    device = profile_of("container_v2")

    assert device.memory_limit == 1 * GIB
    # 400 MiB are used, of which 280 MiB are file pages that reclaim gives back.
    assert device.memory_budget == 1 * GIB - (400 - 280) * MIB
    assert device.usable_cpus == 1.5
    assert device.threads == device.batch_threads == 1
    assert device.physical_cores == 4


def test_a_limit_of_a_parent_group_binds_too(profile_of):
    device = profile_of("service_v2")

    assert device.memory_limit == 1536 * MIB  # of the slice, below the service's 2 GiB
    assert device.memory_budget == (1536 - 512) * MIB
    assert device.usable_cpus == 2.5
    assert device.threads == device.batch_threads == 2


def test_memory_high_is_a_limit(profile_of):
    high = {"sys/fs/cgroup/memory.high": str(700 * MIB)}

    assert profile_of("container_v2", high).memory_budget == (700 - 120) * MIB


def test_a_container_on_cgroup_v1(profile_of):
    device = profile_of("container_v1")

    assert device.memory_limit == 512 * MIB
    assert device.memory_budget == (512 - (200 - 100)) * MIB
    assert device.usable_cpus == 2.0
    assert device.threads == 2


def test_cgroup_v1_without_limits(profile_of):
    device = profile_of("unlimited_v1")

    assert device.memory_limit is None
    assert device.memory_budget == device.memory_available
    assert device.usable_cpus == 8.0


def test_affinity_and_the_address_space_limit(profile_of):
    device = profile_of("ulimited_server")

    assert device.usable_cpus == 4.0
    # Processors 0,1,4,5 are two cores of two threads.
    assert device.threads == device.batch_threads == 2
    assert device.address_limit == 2048000000
    assert device.memory_budget == 2048000000 - 200000 * KIB


def test_a_full_group_leaves_nothing_and_not_less(profile_of):
    full = {"sys/fs/cgroup/memory.current": str(2 * GIB), "sys/fs/cgroup/memory.stat": None}

    assert profile_of("container_v2", full).memory_budget == 0


def test_a_process_outside_the_visible_hierarchy_gets_the_limits_it_can_see(profile_of):
    device = profile_of("container_v2", {"proc/self/cgroup": "0::/../../system.slice\n"})

    assert device.memory_limit == 1 * GIB


def test_kernels_need_every_core_to_have_them(profile_of):
    mixed = recorded("android_phone")["proc/cpuinfo"].replace("i8mm", "", 1)

    assert profile_of("android_phone", {"proc/cpuinfo": mixed}).isas[0] == "neon_dotprod"


def test_an_empty_tree_is_a_machine_of_one_core(tmp_path):
    device = linux.detect(tmp_path)

    assert device.threads == 1
    assert device.memory_budget == 0
