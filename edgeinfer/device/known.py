"""Boards, computers and phones one can plan for without holding them.

The facts, each with its source, are in ``known.json``. What is published differs from what an
engine measures on the device: streams are those of other programs, and the integer rate is what
the cores' execution units allow at the clocks they hold.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from edgeinfer.device.ceilings import Ceilings, CeilingsByThreads, interpolated
from edgeinfer.device.isa import isas_below
from edgeinfer.device.profile import DeviceProfile
from edgeinfer.errors import NotFoundError, known_names

_GIB = 1 << 30


@cache
def _facts() -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(Path(__file__).with_name("known.json").read_text("utf-8"))
    return facts


def names() -> tuple[str, ...]:
    """Returns the names that ``load`` knows."""
    return tuple(_facts()["devices"])


def load(name: str) -> DeviceProfile:
    """Returns the profile of a known device, as it is after it has started.

    Raises:
        NotFoundError: there is no device of this name.
    """
    device = _facts()["devices"].get(name.lower())
    if device is None:
        raise NotFoundError(f"no device is called {name!r}", hint=known_names(name, names()))
    chip = _facts()["chips"][device["chip"]]
    cores = sum(count for _, count, _ in chip["cores"])
    # As many as its memory is read best by.
    threads = max(map(int, chip["stream"]))
    free = int((device["memory_gib"] - device["system_gib"]) * _GIB)
    return DeviceProfile(
        name=device["name"],
        os=chip["os"],
        machine=chip["machine"],
        cpu=chip["cpu"],
        isas=isas_below(chip["isa"]),
        logical_cores=cores,
        physical_cores=cores,
        performance_cores=threads,
        usable_cpus=float(cores),
        threads=threads,
        batch_threads=cores,
        memory_total=int(device["memory_gib"] * _GIB),
        memory_available=free,
        memory_budget=free,
        page_size=chip["page_size"],
        ceilings=_ceilings(chip, cores),
    )


def _ceilings(chip: dict[str, Any], cores: int) -> CeilingsByThreads:
    kinds = _facts()["cores"]
    rates = [
        kinds[kind]["macs_per_cycle"] * clock * 1e9
        for kind, count, clock in chip["cores"]
        for _ in range(count)
    ]
    rates.sort(reverse=True)  # the fastest cores are taken first
    stream = sorted((int(threads), rate * 1e9) for threads, rate in chip["stream"].items())
    return CeilingsByThreads(
        points=tuple(
            Ceilings(
                threads=threads,
                stream_bytes_per_second=interpolated(threads, stream),
                int8_macs_per_second=sum(rates[:threads]),
            )
            for threads in range(1, cores + 1)
        ),
        source=f"published: {chip['source']}",
    )
