"""``edgeinfer device``: what this machine is, as the planner sees it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from edgeinfer.cli import ui

if TYPE_CHECKING:
    from edgeinfer.backends.base import Support
    from edgeinfer.device import DeviceProfile
    from edgeinfer.device.ceilings import CeilingsByThreads
    from edgeinfer.device.thermal import ThermalState
    from edgeinfer.device.thermal_linux import Clock

Row = tuple[str, str]


@click.command()
@click.option("--measure", is_flag=True, help="Measure memory and arithmetic, for 3 seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print a record.")
def command(measure: bool, as_json: bool) -> None:
    """Show this machine: processor, kernels, caches, memory, accelerators, heat.

    --measure takes how fast memory is read and integers are multiplied by each number of
    threads, and remembers it for plans. Let nothing else run meanwhile.
    """
    from dataclasses import asdict, replace

    from edgeinfer import device as devices
    from edgeinfer.backends import registry
    from edgeinfer.device import measured, thermal
    from edgeinfer.device.thermal_linux import clocks

    device = devices.detect()
    ceilings = measured.measure(device) if measure else measured.ceilings(device)
    device = replace(device, ceilings=ceilings)
    state = thermal.read()
    answers = registry.accelerators(device)
    if as_json:
        found = [
            {"backend": name, "usable": support.usable, **asdict(accelerator)}
            for name, support in answers.items()
            for accelerator in support.accelerators
        ]
        parts: dict[str, Any] = {
            "accelerators": found,
            "thermal": asdict(state),
            "clocks": [asdict(clock) for clock in clocks()],
        }
        ui.emit_json(asdict(device) | parts)
        return
    rows = [
        *_machine(device),
        *_accelerators(answers),
        *_heat(state, clocks()),
        *_memory(device),
        *_measured(ceilings),
    ]
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        if text:
            ui.emit(f"{name:{width}}  {text}")


def _machine(device: DeviceProfile) -> Iterator[Row]:
    cores = f"{device.physical_cores} cores, {device.logical_cores} threads"
    if device.performance_cores != device.physical_cores:
        cores += f", {device.performance_cores} fast"
    if device.usable_cpus < device.logical_cores:
        cores += f"; {device.usable_cpus:g} processors usable"
    threads = str(device.threads)
    if device.batch_threads not in (None, device.threads):
        threads += f", {device.batch_threads} to read prompts"
    yield "machine", " ".join(filter(None, (device.name, device.os, device.machine)))
    yield "processor", device.cpu
    yield "cores", cores
    yield "default threads", threads
    yield "kernels", ", ".join(device.isas)
    yield (
        "caches",
        ", ".join(
            f"L{cache.level} {ui.format_bytes(cache.bytes)}"
            for cache in device.caches
            if cache.kind != "instruction"
        ),
    )


def _accelerators(answers: dict[str, Support]) -> Iterator[Row]:
    none = []
    for name, support in answers.items():
        if not support.accelerators and name != "native":
            none.append(f"{name}: {support.reason}")
        for each in support.accelerators:
            memory = f", {ui.format_bytes(each.memory_bytes)}" if each.memory_bytes else ""
            unused = "" if support.usable else f" ({support.reason})"
            yield each.kind, f"{each.name} ({each.api}{memory}), by {name}{unused}"
    if not any(support.accelerators for support in answers.values()):
        yield "accelerators", "none that is usable (" + "; ".join(none) + ")"


def _heat(state: ThermalState, clocks: tuple[Clock, ...]) -> Iterator[Row]:
    if state.celsius is not None:
        yield "temperature", f"{state.celsius:.0f} °C"
    for clock in clocks:
        now = f"{clock.now / 1e9:.2f} of " if clock.now else ""
        yield f"clock of {clock.cpus}", f"{now}{clock.maximum / 1e9:.2f} GHz"
    yield "throttled", ", ".join(state.reasons)
    yield "was throttled", ", ".join(state.past)


def _memory(device: DeviceProfile) -> Iterator[Row]:
    memory = f"{ui.format_bytes(device.memory_available)} available"
    yield "memory", f"{memory} of {ui.format_bytes(device.memory_total)}"
    large = device.large_page_size
    more = f", large ones {ui.format_bytes(large)}" if large else ""
    yield "pages", ui.format_bytes(device.page_size) + more
    if device.memory_limit is not None:
        yield "cgroup limit", ui.format_bytes(device.memory_limit)
    if device.address_limit is not None:
        yield "address limit", ui.format_bytes(device.address_limit)
    yield "memory for models", ui.format_bytes(device.memory_budget)


def _measured(ceilings: CeilingsByThreads | None) -> Iterator[Row]:
    if ceilings is None:
        yield "speed", "not measured yet (edgeinfer device --measure)"
        return
    yield "speed", ceilings.source
    for point in ceilings.points:
        threads = f"{point.threads} thread{'s' if point.threads > 1 else ''}"
        read, multiplied = point.stream_bytes_per_second / 1e9, point.int8_macs_per_second / 1e9
        yield f"  {threads}", f"{read:.1f} GB/s read, {multiplied:.0f}e9 int8 multiply-adds/s"
