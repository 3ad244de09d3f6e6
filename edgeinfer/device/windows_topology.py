"""Cores and caches as GetLogicalProcessorInformationEx tells them.

Source: SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX and its parts, learn.microsoft.com, winnt.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from edgeinfer.device.profile import Cache

_CORE, _CACHE, _ALL = 0, 2, 0xFFFF  # LOGICAL_PROCESSOR_RELATIONSHIP
_HEADER = struct.Struct("<II")  # relationship, bytes of the record
_CORE_HEAD = struct.Struct("<BB20xH")  # flags, efficiency class, groups
_CACHE_HEAD = struct.Struct("<BBHII18xH")  # level, associativity, line, bytes, type, groups
_GROUP = struct.Struct("<QHHHH")  # mask, group
_KINDS = ("unified", "instruction", "data")  # PROCESSOR_CACHE_TYPE; the others are traces


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """A physical core; a higher class is faster."""

    efficiency_class: int
    cpus: frozenset[int]  # 64 times the group, plus the number in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """What the answer holds of interest."""

    cores: tuple[Core, ...]
    caches: tuple[tuple[Cache, frozenset[int]], ...]  # each with its processors

    @property
    def fast_cores(self) -> tuple[Core, ...]:
        """The cores of the fastest class: all of them where there is one."""
        top = max((core.efficiency_class for core in self.cores), default=0)
        return tuple(core for core in self.cores if core.efficiency_class == top)

    def caches_of(self, cpu: int) -> tuple[Cache, ...]:
        """The caches that a processor sees, the nearest first."""
        found = (cache for cache, cpus in self.caches if cpu in cpus)
        return tuple(sorted(found, key=lambda cache: (cache.level, cache.kind)))


def parse(answer: bytes) -> Topology:
    """Reads the records of an answer for RelationAll."""
    cores, caches = [], []
    for relationship, record in _records(answer):
        if relationship == _CORE:
            _, efficiency_class, groups = _CORE_HEAD.unpack_from(record)
            cpus = _cpus(record, _CORE_HEAD.size, groups)
            cores.append(Core(efficiency_class=efficiency_class, cpus=cpus))
        elif relationship == _CACHE:
            level, _, _, size, kind, groups = _CACHE_HEAD.unpack_from(record)
            # Before Windows Server 2022 there was one group, and this word was 0.
            cpus = _cpus(record, _CACHE_HEAD.size, groups or 1)
            if kind < len(_KINDS):
                cache = Cache(level=level, kind=_KINDS[kind], bytes=size, shared_by=len(cpus))
                caches.append((cache, cpus))
    return Topology(cores=tuple(cores), caches=tuple(caches))


def _records(answer: bytes) -> Iterator[tuple[int, bytes]]:
    start = 0
    while start + _HEADER.size <= len(answer):
        relationship, size = _HEADER.unpack_from(answer, start)
        if size < _HEADER.size or start + size > len(answer):
            return
        yield relationship, answer[start + _HEADER.size : start + size]
        start += size


def _cpus(record: bytes, start: int, groups: int) -> frozenset[int]:
    found: set[int] = set()
    for index in range(groups):
        mask, group, *_ = _GROUP.unpack_from(record, start + index * _GROUP.size)
        found.update(64 * group + bit for bit in range(64) if mask >> bit & 1)
    return frozenset(found)


def ask() -> bytes:
    """Asks this Windows."""
    import ctypes

    kernel32 = ctypes.CDLL("kernel32")
    size = ctypes.c_uint32(0)
    kernel32.GetLogicalProcessorInformationEx(_ALL, None, ctypes.byref(size))
    answer = ctypes.create_string_buffer(size.value)
    if not kernel32.GetLogicalProcessorInformationEx(_ALL, answer, ctypes.byref(size)):
        return b""
    return answer.raw[: size.value]
