"""The models that are loaded on this machine, of this user: what ``edgeinfer ps`` shows.

A process keeps a small file for each model that it has loaded. Each is written whole or not at
all, when the model is loaded and then at most about once a second, and removed when it is closed.
One whose process is gone is cleaned up by whoever looks.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from itertools import count
from pathlib import Path
from typing import Any

from edgeinfer.device.procfs import read_text
from edgeinfer.planner.plan import MemoryPlan
from edgeinfer.store.home import home

LARGEST = 1 << 16  # bytes
_numbers = count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A loaded model."""

    pid: int
    started: str  # when the process did: numbers of processes are used again
    loaded: float  # seconds since 1970
    model: str
    path: str
    backend: str
    quant: str
    chosen_because: str
    rejected: list[dict[str, str]]
    context: int  # tokens
    context_used: int | None = 0  # None: who measures the engine does not tell
    tokens_per_second: float | None = None

    @classmethod
    def of(cls, plan: MemoryPlan, *, model: str, path: str) -> Entry:
        """The entry of a model that this process has just loaded."""
        return cls(
            pid=os.getpid(),
            started=process_start(os.getpid()),
            loaded=time.time(),
            model=model,
            path=path,
            backend=plan.backend,
            quant=plan.quant,
            chosen_because=plan.chosen_because,
            rejected=[{"backend": r.backend, "reason": r.reason} for r in plan.rejected],
            context=plan.context,
        )


class Listed:
    """A model in the list. A folder that cannot be written to leaves it out of the list."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self._path = folder() / f"{entry.pid}-{next(_numbers)}.json"
        self._write()

    def update(self, *, context_used: int | None, tokens_per_second: float | None) -> None:
        """Says what the model does now."""
        self.entry = replace(
            self.entry, context_used=context_used, tokens_per_second=tokens_per_second
        )
        self._write()

    def remove(self) -> None:
        """Takes it off the list; once more is fine. A forked process leaves it alone."""
        if os.getpid() == self.entry.pid:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        part = self._path.with_suffix(".part")
        with suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            part.write_text(json.dumps(asdict(self.entry)))
            os.replace(part, self._path)  # not synced: what a power cut takes is of no use


def listed() -> list[Entry]:
    """The models loaded now, the first one loaded first."""
    return sorted(_living(), key=lambda entry: entry.loaded)


def _living() -> Iterator[Entry]:
    for path in folder().glob("*.json"):
        entry = _read(path)
        if entry is None:
            continue
        if process_start(entry.pid) == entry.started:
            yield entry
        else:
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _read(path: Path) -> Entry | None:
    try:
        if path.stat().st_size > LARGEST:
            return None
        record: Any = json.loads(path.read_bytes())
        return Entry(**{field.name: record[field.name] for field in fields(Entry)})
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None  # gone, or of another version


def folder() -> Path:
    """Where the files are: the same for every program of the user, however it was started."""
    return home() / "running"


def process_start(pid: int) -> str:
    """When a process started, in whatever the system counts; "" if it is gone."""
    if sys.platform.startswith(("linux", "android")):
        # Ticks since the machine started: psutil's time of day moves when the clock is set.
        # The name in parentheses may hold spaces; state is field 3, the start field 22.
        fields_after = read_text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
        gone = not fields_after or fields_after[0] in "ZX"
        return "" if gone else fields_after[19]
    import psutil

    try:
        return f"{psutil.Process(pid).create_time():.3f}"
    except psutil.Error:
        return ""
