"""A result is worth keeping only with the machine and the commit it was taken on."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


def processor() -> str:
    """The processor's model name, as the kernel tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str:
    """The short commit of the checkout, with a plus if tracked files differ from it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"],
        cwd=RESULTS.parent,
        capture_output=True,
        text=True,
    )
    return described.stdout.strip() or "unknown"


def context(packages: Iterable[str] = ()) -> dict[str, Any]:
    """What every result is saved with: date, commit, machine, versions of the peers."""
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": versions,
    }


def save(name: str, about: dict[str, Any], rows: Sequence[dict[str, Any]]) -> Path:
    """Writes results/NAME.json and returns its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({**about, "rows": list(rows)}, indent=1) + "\n")
    return path


def table(rows: Sequence[dict[str, Any]], formats: dict[str, str]) -> str:
    """Lays the rows out as Markdown; ``formats`` maps a column to its format spec."""
    cells = [[format(row[name], spec) for name, spec in formats.items()] for row in rows]
    heads = list(formats)
    widths = [max(len(line[i]) for line in [heads, *cells]) for i in range(len(heads))]

    def line(values: Sequence[str]) -> str:
        return "| " + " | ".join(v.rjust(w) for v, w in zip(values, widths, strict=True)) + " |"

    rule = "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|"
    return "\n".join([line(heads), rule, *map(line, cells)])
