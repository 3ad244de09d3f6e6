"""``edgeinfer device``: what this machine is, as the planner sees it."""

from __future__ import annotations

import click

from edgeinfer.cli import ui


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a record.")
def command(as_json: bool) -> None:
    """Show this machine: processor, kernels, caches, and the memory that is left."""
    from dataclasses import asdict

    from edgeinfer.device import detect

    device = detect()
    if as_json:
        ui.emit_json(asdict(device))
        return
    cores = f"{device.physical_cores} cores, {device.logical_cores} threads"
    if device.performance_cores != device.physical_cores:
        cores += f", {device.performance_cores} fast"
    if device.usable_cpus < device.logical_cores:
        cores += f"; {device.usable_cpus:g} processors usable"
    threads = str(device.threads)
    if device.batch_threads not in (None, device.threads):
        threads += f", {device.batch_threads} to read prompts"
    caches = ", ".join(
        f"L{cache.level} {ui.format_bytes(cache.bytes)}"
        for cache in device.caches
        if cache.kind != "instruction"
    )
    memory = f"{ui.format_bytes(device.memory_available)} available"
    memory += f" of {ui.format_bytes(device.memory_total)}"
    rows = [
        ("machine", " ".join(filter(None, (device.name, device.os, device.machine)))),
        ("processor", device.cpu),
        ("cores", cores),
        ("default threads", threads),
        ("kernels", ", ".join(device.isas)),
        ("caches", caches),
        ("memory", memory),
    ]
    for name, limit in (
        ("cgroup limit", device.memory_limit),
        ("address limit", device.address_limit),
    ):
        if limit is not None:
            rows.append((name, ui.format_bytes(limit)))
    rows.append(("memory for models", ui.format_bytes(device.memory_budget)))
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        if text:
            ui.emit(f"{name:{width}}  {text}")
