"""Asks a backend whether it runs here, in a process of its own, and remembers the answer.

Importing a foreign library can end a process (an instruction this processor lacks) or hang
it (a driver). Here it ends or hangs a child. An answer is good until a package is
installed or removed, or the machine changes.

The child is this module: ``python -m edgeinfer.backends.probing MODULE:CLASS``.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgeinfer.backends.base import Backend, Support
from edgeinfer.backends.entry_points import EntryPoint, path_stamps
from edgeinfer.device.accelerator import Accelerator
from edgeinfer.device.profile import DeviceProfile
from edgeinfer.formats.remembered import Remembered
from edgeinfer.store.home import home

TIMEOUT = 20.0  # seconds; a large library from a cold disk takes some
_DEV = Path("/dev")
_DRIVERS = ("dri/*", "nvidia*", "kfd", "accel/*", "mali*")  # there, where there is one
_MARK = "edgeinfer-probe:"  # libraries print what they like before


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a backend says of itself; ``problem`` is set if it could not be asked."""

    support: Support
    formats: frozenset[str] = frozenset()
    version: str = ""
    problem: str = ""

    @classmethod
    def failed(cls, problem: str) -> Answer:
        """The answer of one that does not answer."""
        return cls(support=Support(usable=False, reason=problem), problem=problem)


def ask_here(backend: Backend, device: DeviceProfile) -> Answer:
    """Asks in this process."""
    return Answer(
        support=backend.probe(device),
        formats=frozenset(backend.formats),
        version=backend.version(),
    )


def ask(
    entry_points: Iterable[EntryPoint], device: DeviceProfile, timeout: float = TIMEOUT
) -> dict[str, Answer]:
    """Asks all at the same time, or remembers what they said; returns answers by name."""
    memory = Remembered(home() / "probes.json")
    known: dict[str, Answer] = {}
    children: dict[str, tuple[str, subprocess.Popen[str]]] = {}
    surroundings = _surroundings(device)
    for point in entry_points:
        key = hashlib.sha256(f"{surroundings}\n{_written(point)}".encode()).hexdigest()
        found = memory.get(key)
        if found is not None:
            known[point.name] = _answer(found)
        else:
            children[point.name] = (key, _start(point))
    for name, (key, child) in children.items():
        record = _result(child, timeout)
        known[name] = _answer(record)
        if not record.get("late"):
            memory.put(key, record)
    return known


def _start(point: EntryPoint) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", __name__, point.value],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        # It finds what this process finds, wherever that came from.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)},
    )


def _result(child: subprocess.Popen[str], timeout: float) -> dict[str, Any]:
    """What the child said, or how it ended."""
    try:
        out, err = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        return {"problem": f"its probe did not answer within {timeout:g} s", "late": True}
    said = next((line for line in out.splitlines() if line.startswith(_MARK)), None)
    if said is not None:
        record: dict[str, Any] = json.loads(said.removeprefix(_MARK))
        return record
    last = (err.strip().splitlines() or ["it said nothing"])[-1]
    return {"problem": f"its probe crashed ({_ending(child.returncode)}): {last}"}


def _ending(code: int) -> str:
    if code < 0:
        with suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


def _answer(record: Mapping[str, Any]) -> Answer:
    if "problem" in record:
        return Answer.failed(str(record["problem"]))
    support = record["support"]
    found = tuple(Accelerator(**each) for each in support.get("accelerators", ()))
    return Answer(
        support=Support(**support | {"accelerators": found}),
        formats=frozenset(record["formats"]),
        version=record["version"],
    )


def _written(point: EntryPoint) -> str:
    """Changes when the backend's own module is edited; nothing is imported for it."""
    top, *inner = point.module.split(".")
    stamps = [point.name, point.value]
    with suppress(OSError, ImportError, ValueError):
        spec = find_spec(top)
        if spec is not None and spec.submodule_search_locations:
            folder = Path(next(iter(spec.submodule_search_locations)))
            stamps.append(str(folder.joinpath(*inner).with_suffix(".py").stat().st_mtime_ns))
        elif spec is not None and spec.origin:
            stamps.append(str(Path(spec.origin).stat().st_mtime_ns))
    return " ".join(stamps)


def _surroundings(device: DeviceProfile) -> str:
    """Changes when a package or a driver comes or goes, or interpreter or machine is another."""
    machine = [device.os, device.machine, device.cpu, *device.isas]
    return "\n".join(
        [sys.executable, sys.version, *machine, *path_stamps()]
        + [str(path) for pattern in _DRIVERS for path in sorted(_DEV.glob(pattern))]
    )


def _main(value: str) -> None:
    from edgeinfer.device.detect import detect

    try:
        backend = EntryPoint("probed", value).load()()
        answer = ask_here(backend, detect())
        record: dict[str, Any] = {
            "support": asdict(answer.support),
            "formats": sorted(answer.formats),
            "version": answer.version,
        }
    except Exception as error:
        record = {"problem": f"its probe failed: {type(error).__name__}: {error}"}
    print(_MARK + json.dumps(record), flush=True)
    # What a library does at the end is of no interest, and may hang.
    os._exit(0)


if __name__ == "__main__":
    _main(sys.argv[1])
