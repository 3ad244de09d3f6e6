"""Which backend runs a model: the one asked for, or the fastest of those that can.

Of several that can, the one whose speed is known to be best is taken. Where it was not
measured, the plans' predictions decide; where there are none, or the best two are within 25 %,
or answers came at another speed than expected, they are raced on the real model, and the result
is remembered. One that cannot load the model gives way to the next, with a
warning; one asked for by name never does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from edgeinfer.backends import registry
from edgeinfer.backends.adapters import HINT
from edgeinfer.backends.base import Adaptable, Engine, ModelFiles
from edgeinfer.backends.registry import Candidate
from edgeinfer.device.isa import isa_in_use
from edgeinfer.device.profile import DeviceProfile
from edgeinfer.errors import CorruptFileError, EdgeInferError, UnsupportedError, UsageError
from edgeinfer.planner.paces import MEASURED_WITH
from edgeinfer.planner.plan import MemoryPlan, Rejection
from edgeinfer.planner.speed import Speed
from edgeinfer.runtime.speeds import Expectation, Setting, Speeds, measure

RACE_SECONDS = 2.0  # for all that race together
CLOSE = 1.25  # a prediction decides if the second takes this many times as long

_log = logging.getLogger("edgeinfer")
_FINAL = (CorruptFileError, UsageError)  # no other backend would make it better


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A model to open; ``plan`` plans it for a backend, or raises why it cannot."""

    files: ModelFiles
    device: DeviceProfile
    plan: Callable[[str], MemoryPlan]
    adapters: bool = False  # only an engine that has them will do
    causal: bool = True  # else it writes nothing that could be raced


@dataclass(slots=True, eq=False)
class _Runner:
    """A backend that may run the model."""

    candidate: Candidate
    plan: MemoryPlan
    speed: Speed | None = None
    engine: Engine | None = None

    @property
    def name(self) -> str:
        return self.candidate.name

    def shutdown(self) -> None:
        if self.engine is not None:
            self.engine.shutdown()
            self.engine = None


class Choice:
    """A choice to be made: which backends could run a model, each with its plan.

    Attributes:
        rejected: which backends were not taken, and why.
        expectation: after ``open``, what it was made by, if that were speeds.
    """

    def __init__(self, name: str, job: Job, speeds: Speeds | None = None) -> None:
        """Finds who can; nothing of the model is loaded yet.

        Args:
            name: a backend's name, which is that one or an error; or "auto".
            job: the model.
            speeds: what is known; None for what is remembered on this machine.

        Raises:
            NotFoundError: no backend has that name.
            UnsupportedError: none runs the model, or the named one does not.
            DoesNotFitError: there is not enough memory.
        """
        self.job = job
        self.speeds = Speeds() if speeds is None else speeds
        self.rejected: list[Rejection] = []
        self.expectation: Expectation | None = None
        self.first_error: Exception | None = None
        self.asked_for = name != registry.AUTO
        if self.asked_for:
            candidate = registry.named(name, job.files.format, job.device)
            self.runners = [_Runner(candidate, job.plan(name))]
            return
        found = registry.candidates(job.device)
        self.runners = [runner for candidate in found if (runner := self._runner(candidate))]
        if not self.runners:
            raise self.first_error or registry.none_fits(found, job.files.format)

    def open(self) -> tuple[Engine, MemoryPlan]:
        """Loads the model into the best backend that can.

        Raises:
            EdgeInferError: what the backend raised; of several, what the first one did.
        """
        if self.asked_for:
            (only,) = self.runners
            return self._opened(only), replace(only.plan, chosen_because="asked for")
        runners, because = self._ranked(self.runners)
        for runner in runners:
            loaded = runner.engine or self._load(runner)
            if loaded is not None:
                losers = [other for other in runners if other is not runner]
                for loser in losers:
                    loser.shutdown()
                self._reject_slower(runner, losers)
                self._expect(runner, runners)
                return loaded, replace(
                    runner.plan, chosen_because=because(runner), rejected=tuple(self.rejected)
                )
        assert self.first_error is not None
        raise self.first_error

    # ---- who can -------------------------------------------------------------------------

    def _runner(self, candidate: Candidate) -> _Runner | None:
        reason = registry.unfit(candidate, self.job.files.format)
        if reason is not None:
            if candidate.problem:
                _log.warning("the backend %s is left out: %s", candidate.name, candidate.problem)
            self._reject(candidate.name, reason)
            return None
        try:
            return _Runner(candidate, self.job.plan(candidate.name))
        except _FINAL:
            raise
        except EdgeInferError as error:
            self._reject(candidate.name, error.message, error)
            return None

    def _load(self, runner: _Runner) -> Engine | None:
        """Loads the model; None, a warning and a rejection if that fails."""
        try:
            return self._opened(runner)
        except _FINAL:
            raise
        except Exception as error:  # whatever a foreign library raises
            self._give_way(runner, error)
            return None

    def _opened(self, runner: _Runner) -> Engine:
        engine = runner.candidate.backend.load(self.job.files, runner.plan)
        if self.job.adapters and not isinstance(engine, Adaptable):
            engine.shutdown()
            raise UnsupportedError(f"the backend {runner.name} has no adapters", hint=HINT)
        return engine

    def _give_way(self, runner: _Runner, error: Exception) -> None:
        reason = f"{error}" or type(error).__name__
        _log.warning("the backend %s cannot run this model: %s", runner.name, reason)
        self._reject(runner.name, f"cannot run this model: {reason}", error)

    def _reject(self, name: str, reason: str, error: Exception | None = None) -> None:
        self.rejected.append(Rejection(backend=name, reason=reason))
        self.first_error = self.first_error or error

    # ---- who is fastest ------------------------------------------------------------------

    def _ranked(self, runners: list[_Runner]) -> tuple[list[_Runner], Callable[[_Runner], str]]:
        """The runners, best first, and how to say why."""
        if len(runners) == 1:
            return runners, lambda _: "the only one that runs this model here"
        if not self.job.causal:
            return runners, lambda _: "the first that runs models for embeddings here"
        for runner in runners:
            runner.speed = self.speeds.recall(self._setting(runner))
        if all(runner.speed for runner in runners):
            return _by_speed(runners), lambda r: f"measured before: {r.speed}"
        for runner in runners:
            runner.speed = runner.speed or self._predicted(runner)
        ranked = _by_speed(runners)
        first, second = (r.speed and r.speed.turn_seconds for r in ranked[:2])
        if all(r.speed for r in ranked) and first and second and second > CLOSE * first:
            return ranked, lambda r: f"predicted: {r.speed}"
        return self._race(ranked), lambda r: f"raced: {r.speed}" if r.speed else "it loads"

    def _predicted(self, runner: _Runner) -> Speed | None:
        """The plan's prediction; None where it is not to be trusted.

        It is of the processor alone, compares engines only with the kernels that it was made
        with, and may have been wrong before.
        """
        layers = runner.plan.gpu_layers
        on_gpu = layers or (layers is None and runner.candidate.support.accelerators)
        if on_gpu or isa_in_use() not in MEASURED_WITH:
            return None
        doubted = self.speeds.is_doubted(self._setting(runner))
        return None if doubted else runner.plan.speed

    def _expect(self, winner: _Runner, runners: list[_Runner]) -> None:
        if winner.speed is not None and len(runners) > 1:
            self.expectation = Expectation(
                speeds=self.speeds,
                settings=tuple(self._setting(runner) for runner in runners),
                speed=winner.speed,
            )

    def _race(self, runners: list[_Runner]) -> list[_Runner]:
        """Measures each on the model; keeps as many loaded as fit together."""
        done: list[_Runner] = []
        undisturbed = True
        for runner in runners:
            loaded = [other for other in done if other.engine is not None]
            if sum(r.plan.total_bytes for r in (*loaded, runner)) > runner.plan.budget_bytes:
                for other in loaded:
                    other.shutdown()
            runner.engine = self._load(runner)
            if runner.engine is None:
                continue
            try:
                seconds = RACE_SECONDS / len(runners)
                runner.speed, steady = measure(runner.engine, runner.plan, seconds)
            except Exception as error:  # it loads, but does not run
                runner.shutdown()
                self._give_way(runner, error)
                continue
            undisturbed = undisturbed and steady
            done.append(runner)
        for runner in done:
            assert runner.speed is not None
            self.speeds.remember(self._setting(runner), runner.speed, steady=undisturbed)
        return _by_speed(done)

    def _setting(self, runner: _Runner) -> Setting:
        return Setting.of(
            runner.candidate.version, self.job.files.path, self.job.device, runner.plan
        )

    def _reject_slower(self, winner: _Runner, losers: list[_Runner]) -> None:
        for loser in losers:
            if any(loser.name == rejection.backend for rejection in self.rejected):
                continue
            reason = "never measured"
            if winner.speed and loser.speed:
                times = loser.speed.turn_seconds / winner.speed.turn_seconds
                reason = f"slower by {times:.2f}x ({loser.speed})"
            self._reject(loser.name, reason)


def _by_speed(runners: list[_Runner]) -> list[_Runner]:
    """Fastest first; those of unknown speed last, as they are ranked."""
    return sorted(runners, key=lambda r: r.speed.turn_seconds if r.speed else float("inf"))
