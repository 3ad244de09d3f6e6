"""What the Windows API answers, laid out as winnt.h declares it."""

from __future__ import annotations

import ctypes

from edgeinfer.device import windows, windows_topology
from edgeinfer.device.profile import Cache
from edgeinfer.device.windows import Answers

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
CORE, NUMA, CACHE, PACKAGE = 0, 1, 2, 3
UNIFIED, INSTRUCTION, DATA, TRACE = range(4)


class GroupAffinity(ctypes.Structure):
    _fields_ = (
        ("Mask", ctypes.c_uint64),
        ("Group", ctypes.c_uint16),
        ("Reserved", ctypes.c_uint16 * 3),
    )


class Processor(ctypes.Structure):
    _fields_ = (
        ("Flags", ctypes.c_uint8),
        ("EfficiencyClass", ctypes.c_uint8),
        ("Reserved", ctypes.c_uint8 * 20),
        ("GroupCount", ctypes.c_uint16),
        ("GroupMask", GroupAffinity * 1),
    )


class CacheRelationship(ctypes.Structure):
    _fields_ = (
        ("Level", ctypes.c_uint8),
        ("Associativity", ctypes.c_uint8),
        ("LineSize", ctypes.c_uint16),
        ("CacheSize", ctypes.c_uint32),
        ("Type", ctypes.c_uint32),
        ("Reserved", ctypes.c_uint8 * 18),
        ("GroupCount", ctypes.c_uint16),
        ("GroupMask", GroupAffinity * 1),
    )


def record(relationship: int, body: ctypes.Structure) -> bytes:
    raw = bytes(body)
    return bytes((ctypes.c_uint32 * 2)(relationship, 8 + len(raw))) + raw


def affinity(mask: int, group: int = 0):
    return (GroupAffinity * 1)(GroupAffinity(Mask=mask, Group=group))


def core(mask: int, efficiency: int, group: int = 0) -> bytes:
    smt = mask.bit_count() > 1
    return record(
        CORE,
        Processor(
            Flags=smt, EfficiencyClass=efficiency, GroupCount=1, GroupMask=affinity(mask, group)
        ),
    )


def cache(level: int, kind: int, size: int, mask: int, groups: int = 1) -> bytes:
    return record(
        CACHE,
        CacheRelationship(
            Level=level, Type=kind, CacheSize=size, GroupCount=groups, GroupMask=affinity(mask)
        ),
    )


# A Core i7-1370P: 6 fast cores of 2 threads, 8 small ones in clusters of 4.
HYBRID = b"".join(
    [
        record(PACKAGE, Processor(GroupCount=1, GroupMask=affinity((1 << 20) - 1))),
        *[core(0b11 << 2 * n, 1) for n in range(6)],
        *[core(1 << 12 + n, 0) for n in range(8)],
        cache(1, DATA, 48 * KIB, 0b11),
        cache(1, INSTRUCTION, 32 * KIB, 0b11),
        cache(2, UNIFIED, 1280 * KIB, 0b11),
        cache(1, DATA, 32 * KIB, 1 << 12),
        cache(2, UNIFIED, 2 * MIB, 0b1111 << 12),
        cache(3, UNIFIED, 24 * MIB, (1 << 20) - 1, groups=0),  # as before Windows Server 2022
        cache(1, TRACE, 12 * KIB, 0b11),
    ]
)
LAPTOP = Answers(
    os="windows",
    machine="AMD64",
    name="HP HP EliteBook 840 14 inch G10 Notebook PC",
    cpu="13th Gen Intel(R) Core(TM) i7-1370P ",
    topology=HYBRID,
    logical_cores=20,
    physical_cores=14,
    affinity=tuple(range(20)),
    memory_total=32 * GIB,
    memory_available=20 * GIB,
)


def laptop(**changes: object):
    from dataclasses import replace

    return windows.profile_of(replace(LAPTOP, **changes), isas=("avxvnni", "avx2", "scalar"))


def test_a_hybrid_laptop():
    device = laptop()

    assert device.machine == "x86_64"
    assert device.cpu == "13th Gen Intel(R) Core(TM) i7-1370P"
    assert (device.logical_cores, device.physical_cores, device.performance_cores) == (20, 14, 6)
    assert (device.threads, device.batch_threads) == (6, 14)
    assert device.caches == (
        Cache(level=1, kind="data", bytes=48 * KIB, shared_by=2),
        Cache(level=1, kind="instruction", bytes=32 * KIB, shared_by=2),
        Cache(level=2, kind="unified", bytes=1280 * KIB, shared_by=2),
        Cache(level=3, kind="unified", bytes=24 * MIB, shared_by=20),
    )
    assert device.memory_budget == 20 * GIB


def test_affinity_leaves_some_of_the_fast_cores():
    device = laptop(affinity=(0, 1, 2, 12))  # two fast cores, one of them by both threads

    assert device.usable_cpus == 4
    assert device.cpus == (0, 1, 2, 12)
    assert (device.threads, device.batch_threads) == (2, 3)


def test_only_small_cores_are_left():
    assert laptop(affinity=(0, 1)).threads == 1
    assert laptop(affinity=(12, 13, 14)).threads == 3


def test_one_kind_of_core():
    ryzen = b"".join(core(0b11 << 2 * n, 0) for n in range(8))

    device = laptop(topology=ryzen, logical_cores=16, affinity=tuple(range(16)))

    assert (device.physical_cores, device.performance_cores, device.threads) == (8, 8, 8)


def test_processors_of_a_second_group():
    (only,) = windows_topology.parse(core(0b101, 0, group=1)).cores

    assert only.cpus == {64, 66}


def test_without_an_answer_what_psutil_counts_is_taken():
    device = laptop(topology=b"")

    assert (device.physical_cores, device.performance_cores, device.threads) == (14, 14, 14)
    assert device.caches == ()


def test_an_answer_that_is_cut_short_ends_there():
    assert len(windows_topology.parse(HYBRID[:200]).cores) < 6
    assert windows_topology.parse(b"\0" * 64).cores == ()


def test_this_machine_through_psutil():
    device = windows.detect()

    assert device.threads >= 1
    assert device.memory_total > 0
