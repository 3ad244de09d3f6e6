"""DeviceProfile: one machine's numbers, the same fields on every operating system."""

from __future__ import annotations

from dataclasses import dataclass

from edgeinfer.device.ceilings import CeilingsByThreads


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """One cache that a performance core sees."""

    level: int
    kind: str  # "data", "instruction" or "unified"
    bytes: int
    shared_by: int  # logical processors


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """A machine as the planner and the backends see it.

    Memory is in bytes and as of the moment of the reading. ``memory_limit`` is the
    tightest limit of the process's control groups, ``address_limit`` its RLIMIT_AS;
    None is no limit. ``memory_budget`` is what this process may still allocate.
    """

    name: str  # the board or computer where the firmware says it, else ""
    os: str  # "linux", "macos", "windows" or what platform.system() says
    machine: str  # "x86_64", "aarch64", ...
    cpu: str  # the processor's brand
    isas: tuple[str, ...] = ()  # kernel sets that run here, best first
    logical_cores: int
    physical_cores: int
    performance_cores: int  # physical cores of the fast kind
    usable_cpus: float  # logical processors left by affinity and CPU quota
    cpus: tuple[int, ...] = ()  # the numbers of those that affinity leaves, where they have some
    threads: int  # compute threads to use unless the user says otherwise
    batch_threads: int | None = None  # the same to read prompts: all cores; None: as threads
    caches: tuple[Cache, ...] = ()
    memory_total: int
    memory_available: int
    memory_limit: int | None = None
    address_limit: int | None = None
    memory_budget: int
    page_size: int = 4096
    large_page_size: int | None = None  # of transparent large pages, where there are any
    ceilings: CeilingsByThreads | None = None  # of a known board; else ``measured.ceilings``
