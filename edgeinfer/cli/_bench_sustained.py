"""``edgeinfer bench --sustained``: how the speed of generating holds over a minute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgeinfer.cli import ui

if TYPE_CHECKING:
    from edgeinfer.runtime.benchmark import Bench, Test


def measure(bench: Bench, test: Test, seconds: float) -> dict[str, Any]:
    """Generates for so long; returns the record."""
    from edgeinfer.device import thermal
    from edgeinfer.runtime.sustained import WINDOW_SECONDS, sustain

    with ui.progress("sustained", round(seconds / WINDOW_SECONDS), "s") as bar:
        found = sustain(bench, test, seconds, thermal=thermal.read, progress=lambda: bar.advance(1))
    return {
        "seconds": sum(window.seconds for window in found.windows),
        "burst": found.burst,
        "last": found.last,
        "least": found.least,
        "last_over_burst": found.kept,
        "celsius": found.celsius,
        "throttled": found.throttled,
        "throttle_reasons": list(found.reasons),
        "windows": [window.tokens_per_second for window in found.windows],
    }


def text(record: Mapping[str, Any]) -> str:
    """The record for people."""
    heat = "" if record["celsius"] is None else f", {record['celsius']:.0f} degrees C"
    slowed = ", ".join(record["throttle_reasons"]) or "none known"
    return (
        f"sustained for {record['seconds']:.0f} s: {record['burst']:.2f} tokens/s at first, "
        f"{record['last']:.2f} at the end ({record['last_over_burst']:.0%}), "
        f"{record['least']:.2f} in the slowest second; throttling: {slowed}{heat}"
    )


def cell(record: Mapping[str, Any] | None) -> str:
    """The record in a table."""
    if record is None:
        return ""
    throttled = ", throttled" if record["throttled"] else ""
    return f"{record['last']:.2f} ({record['last_over_burst']:.0%}{throttled})"
