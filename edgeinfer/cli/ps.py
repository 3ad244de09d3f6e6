"""``edgeinfer ps``: the models that are loaded now."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from edgeinfer.cli import ui

if TYPE_CHECKING:
    from edgeinfer.runtime.running import Entry


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a list of records.")
def command(as_json: bool) -> None:
    """List the models that run, chat and Python programs of yours have loaded now.

    MEMORY is what the process has resident; CONTEXT the tokens read of those there is room for
    (-: it is being measured); TOKENS/S of the last second, or of the last answer; WHY the
    backend was chosen.
    """
    from edgeinfer.runtime.running import listed

    records = [record for entry in listed() if (record := _record(entry))]
    if as_json:
        ui.emit_json(records)
        return
    if not records:
        ui.note("no model is loaded")
        return
    rows = [
        (
            record["pid"],
            record["model"],
            record["backend"],
            ui.format_bytes(record["resident_bytes"]),
            f"{'-' if record['context_used'] is None else record['context_used']}"
            f"/{record['context']}",
            "" if record["tokens_per_second"] is None else f"{record['tokens_per_second']:.1f}",
            _age(record["age_seconds"]),
            record["chosen_because"],
        )
        for record in records
    ]
    heads = ("PID", "MODEL", "BACKEND", "MEMORY", "CONTEXT", "TOKENS/S", "AGE", "WHY")
    ui.table(rows, heads)


def _record(entry: Entry) -> dict[str, Any] | None:
    """The entry with what only the system knows; None if the process has just ended."""
    from dataclasses import asdict

    import psutil

    try:
        resident = psutil.Process(entry.pid).memory_info().rss
    except psutil.Error:
        return None
    record = asdict(entry) | {
        "resident_bytes": resident,
        "age_seconds": max(0.0, time.time() - entry.loaded),
    }
    del record["started"], record["loaded"]
    return record


def _age(seconds: float) -> str:
    """For people: 45 s, 12 min, 3 h, 2 d."""
    for size, unit, most in ((1, "s", 120), (60, "min", 120), (3600, "h", 48)):
        if seconds < size * most:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"
