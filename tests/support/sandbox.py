"""Tries a loader on thousands of files in a process of its own, with little memory and time.

A crash, a hang, an exception of a foreign type and a greedy allocation all end in the
report, each with the label of the file that did it.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SLOW_SECONDS = 1.0
HANG_SECONDS = 20


@dataclass
class Report:
    """What became of the files; everything but the first two should be empty."""

    read: int = 0
    refused: Counter[str] = field(default_factory=Counter)  # by the error's type
    leaked: list[str] = field(default_factory=list)  # label and exception that is no EdgeInferError
    slow: list[str] = field(default_factory=list)
    crashed: str | None = None  # label and signal
    peak_growth: int = 0  # bytes of resident memory over that of loading the valid file

    @property
    def total(self) -> int:
        return self.read + sum(self.refused.values()) + len(self.leaked)


def try_all(loader: str, cases: str, valid: Path, folder: Path, *, memory: int = 1 << 30) -> Report:
    """Calls a loader with each malformed variant of a file.

    Args:
        loader: "module:function", called with a path, to return or raise EdgeInferError.
        cases: "module:function", called with the valid file's bytes, to yield (label, bytes).
        valid: the valid file; the variants get its suffix.
        folder: where the variants are written, one at a time.
        memory: bytes of address space over what loading the valid file took.
    """
    done = subprocess.run(
        [sys.executable, "-m", "support.sandbox", loader, cases, valid, folder, str(memory)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
    )
    if done.returncode < 0:
        label = (folder / "label").read_text()
        return Report(crashed=f"{label}: {signal.Signals(-done.returncode).name}")
    assert done.returncode == 0, done.stderr
    body: dict[str, Any] = json.loads(done.stdout)
    return Report(**{**body, "refused": Counter(body["refused"])})


def _named(reference: str) -> Any:
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


def _main(loader: str, cases: str, valid: str, folder: str, memory: str) -> None:
    from edgeinfer.errors import EdgeInferError

    load, report = _named(loader), Report()
    load(Path(valid))
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + int(memory),) * 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    log = os.open(Path(folder) / "label", os.O_WRONLY | os.O_CREAT)
    for number, (label, octets) in enumerate(_named(cases)(Path(valid).read_bytes())):
        os.ftruncate(log, os.pwrite(log, label.encode(), 0))
        path = Path(folder) / f"{number}{Path(valid).suffix}"
        path.write_bytes(octets)
        signal.alarm(HANG_SECONDS)
        start = time.perf_counter()
        try:
            load(path)
            report.read += 1
        except EdgeInferError as error:
            report.refused[type(error).__name__] += 1
        except Exception as error:
            report.leaked.append(f"{label}: {error!r:.200}")
        if time.perf_counter() - start > SLOW_SECONDS:
            report.slow.append(label)
        signal.alarm(0)
        path.unlink()
    report.peak_growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(json.dumps(vars(report)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
