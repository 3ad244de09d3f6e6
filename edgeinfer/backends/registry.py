"""The installed backends: found by entry point, ranked by what they say of the device."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from edgeinfer.backends.base import Backend, Support
from edgeinfer.device.profile import DeviceProfile
from edgeinfer.errors import NotFoundError, UnsupportedError

GROUP = "edgeinfer.backends"
AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A backend with its answer for one device; ``backend`` is None if it does not import."""

    name: str
    backend: Backend | None
    support: Support


@cache
def _load(entry_point: EntryPoint) -> Backend:
    made: Backend = entry_point.load()()
    return made


def installed() -> dict[str, EntryPoint]:
    """The entry points of all backends, ours and third-party ones, by name."""
    return {entry_point.name: entry_point for entry_point in entry_points(group=GROUP)}


def candidates(device: DeviceProfile) -> list[Candidate]:
    """Every installed backend, the usable ones first, best first.

    A backend that does not import (an optional library is missing or broken) is listed as
    not usable, with the reason; it does not take the others down.
    """
    found = []
    for name, entry_point in installed().items():
        try:
            backend = _load(entry_point)
        except ImportError as error:
            support = Support(usable=False, reason=f"does not import: {error}")
            found.append(Candidate(name=name, backend=None, support=support))
        else:
            found.append(Candidate(name=name, backend=backend, support=backend.probe(device)))
    return sorted(found, key=lambda c: (not c.support.usable, -c.support.rank, c.name))


def choose(name: str, model_format: str, device: DeviceProfile) -> Backend:
    """Finds the backend for a model.

    Args:
        name: a backend's name, or "auto" for the best that reads the format. A backend
            asked for by name is that one or an error, never another.
        model_format: as in ``ModelFiles.format``.
        device: the machine.

    Raises:
        NotFoundError: no backend has that name.
        UnsupportedError: it does not run here, or does not read the format.
    """
    found = candidates(device)
    if name == AUTO:
        return _best(found, model_format)
    named = next((c for c in found if c.name == name), None)
    if named is None:
        raise NotFoundError(f"no backend is called {name!r}", hint=f"installed: {_names(found)}")
    if named.backend is None or not named.support.usable:
        raise UnsupportedError(
            f"the backend {name!r} does not run here: {named.support.reason}",
            hint="--backend auto takes one that does",
        )
    if model_format not in named.backend.formats:
        raise UnsupportedError(
            f"the backend {name!r} does not read {model_format!r} models",
            hint=f"it reads: {', '.join(sorted(named.backend.formats))}",
        )
    return named.backend


def _best(found: Iterable[Candidate], model_format: str) -> Backend:
    found = list(found)
    reasons = []
    for candidate in found:
        if candidate.backend is not None and model_format in candidate.backend.formats:
            if candidate.support.usable:
                return candidate.backend
            reasons.append(f"{candidate.name}: {candidate.support.reason}")
        elif candidate.backend is None:
            reasons.append(f"{candidate.name}: {candidate.support.reason}")
    raise UnsupportedError(
        f"no installed backend runs {model_format!r} models on this machine",
        hint="; ".join(reasons) or f"installed: {_names(found)}",
    )


def _names(found: Iterable[Candidate]) -> str:
    return ", ".join(candidate.name for candidate in found) or "none"
