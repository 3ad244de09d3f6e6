"""The installed backends: found by entry point, each asked what it says of the device."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from edgeinfer.backends import probing
from edgeinfer.backends.base import Backend, Support
from edgeinfer.backends.entry_points import EntryPoint, entry_points
from edgeinfer.device.profile import DeviceProfile
from edgeinfer.errors import NotFoundError, UnsupportedError, known_names
from edgeinfer.planner.footprint import Predictor

GROUP = "edgeinfer.backends"
AUTO = "auto"
# Asked for its devices, though no model runs on them yet.
_LIBRARIES = (EntryPoint("onnxruntime", "edgeinfer.backends.onnxruntime_devices:OnnxRuntime"),)
# Asked in this process: the rest of the program needs its extension as well.
_IN_PROCESS = frozenset({"edgeinfer.backends.native"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A backend with its answer for one device.

    ``problem`` says why it could not be asked: it does not import, or its probe raised,
    crashed or hung. One that is merely not usable, because its library is not installed or
    the device is not for it, has none.
    """

    name: str
    entry_point: EntryPoint
    support: Support
    formats: frozenset[str] = frozenset()
    version: str = ""
    problem: str = ""

    @property
    def backend(self) -> Backend:
        """The backend itself; its module is imported now."""
        return _load(self.entry_point)


@cache
def _load(entry_point: EntryPoint) -> Backend:
    made: Backend = entry_point.load()()
    return made


def installed() -> dict[str, EntryPoint]:
    """The entry points of all backends, ours and third-party ones, by name."""
    return {entry_point.name: entry_point for entry_point in entry_points(group=GROUP)}


def candidates(device: DeviceProfile, names: Iterable[str] | None = None) -> list[Candidate]:
    """The installed backends, or those of some names, the usable ones first, best first.

    Without names, those that want to be asked for are left out.

    One that does not import, crashes or hangs is listed as not usable, with the reason; it
    does not take the others down.
    """
    points = installed()
    points = points if names is None else {name: points[name] for name in names if name in points}
    answers = probing.ask(
        [point for point in points.values() if point.module not in _IN_PROCESS], device
    )
    for name, point in points.items():
        if name not in answers:
            answers[name] = probing.ask_here(_load(point), device)
    found = [
        Candidate(
            name=name,
            entry_point=point,
            support=answers[name].support,
            formats=answers[name].formats,
            version=answers[name].version,
            problem=answers[name].problem,
        )
        for name, point in points.items()
        if names is not None or not answers[name].support.only_by_name
    ]
    return sorted(found, key=lambda c: (not c.support.usable, -c.support.rank, c.name))


def accelerators(device: DeviceProfile) -> dict[str, Support]:
    """What each backend, and each library that may become one, says of the GPUs and NPUs here."""
    libraries = probing.ask(_LIBRARIES, device)
    return {c.name: c.support for c in candidates(device)} | {
        name: answer.support for name, answer in libraries.items()
    }


def named(name: str, model_format: str, device: DeviceProfile) -> Candidate:
    """The backend of a name: that one or an error, never another.

    Raises:
        NotFoundError: no backend has that name.
        UnsupportedError: it does not run here, or does not read the format.
    """
    found = candidates(device, [name])
    if not found:
        hint = known_names(name, sorted(installed()), "installed")
        raise NotFoundError(f"no backend is called {name!r}", hint=hint)
    reason = unfit(found[0], model_format)
    if reason is not None:
        raise UnsupportedError(
            f"the backend {name!r} {reason}", hint="--backend auto takes one that does"
        )
    return found[0]


def predictor(name: str) -> Predictor | None:
    """What a backend predicts of memory and speed, or None if it does not."""
    point = installed().get(name)
    backend = _load(point) if point is not None else None
    return backend if isinstance(backend, Predictor) else None


def unfit(candidate: Candidate, model_format: str) -> str | None:
    """Why a backend cannot run models of a format here, or None if it can."""
    if not candidate.support.usable:
        return f"does not run here: {candidate.support.reason}"
    if model_format not in candidate.formats:
        known = ", ".join(sorted(candidate.formats))
        return f"does not read {model_format!r} models (it reads: {known})"
    return None


def none_fits(found: Iterable[Candidate], model_format: str) -> UnsupportedError:
    """The error that says of each why not."""
    reasons = [f"{c.name} {unfit(c, model_format)}" for c in found]
    return UnsupportedError(
        f"no installed backend runs {model_format!r} models on this machine",
        hint="; ".join(reasons) or "installed: none",
    )
