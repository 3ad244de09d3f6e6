"""How fast backends were here: remembered by everything that a speed hangs on.

A speed is found again for the same model file, device, threads, cache type and version of
the backend; when any of them changes, it is not. What was measured while something disturbed
it is good for minutes only, and answers that come much faster or slower than expected make it
doubtful, so that the next choice measures again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from edgeinfer.backends.base import Engine, Slice
from edgeinfer.device.profile import DeviceProfile
from edgeinfer.formats.remembered import Remembered
from edgeinfer.planner.plan import MemoryPlan
from edgeinfer.planner.speed import Speed
from edgeinfer.store.home import home
from edgeinfer.types import Timings

MEASURED_PROMPT, MEASURED_ANSWER = 128, 48  # tokens of a measurement, if there is time
STEADY = 1.5  # times that speeds of one engine differ by at most if nothing disturbs
SECONDS_KEPT = 30 * 86400.0
SECONDS_SETTLED = 600.0  # not doubted before, nor kept longer if disturbed
# Answers that are held against what is remembered: not too short, nor far into a context.
LEAST_STEPS, LEAST_PROMPT, MOST_CONTEXT = 32, 128, 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a speed is of."""

    backend: str
    version: str
    model: str  # the file
    machine: str
    threads: int
    batch_threads: int
    gpu_layers: int | None
    kv_types: str
    quant: str

    @classmethod
    def of(cls, version: str, path: Path, device: DeviceProfile, plan: MemoryPlan) -> Setting:
        """The setting of a planned model file."""
        stat = path.stat()
        return cls(
            backend=plan.backend,
            version=version,
            model=f"{path.name} {stat.st_size} {stat.st_mtime_ns}",
            machine=f"{device.cpu} {','.join(device.isas)} {device.usable_cpus:g}",
            threads=plan.threads,
            batch_threads=plan.batch_threads or plan.threads,
            gpu_layers=plan.gpu_layers,
            kv_types=plan.kv_types,
            quant=plan.quant,
        )

    @property
    def key(self) -> str:
        """All of it."""
        return "|".join(map(str, astuple(self)))


class Speeds:
    """The speeds measured on this machine."""

    def __init__(self, path: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        self._memory = Remembered(path or home() / "speeds.json")
        self._clock = clock

    def recall(self, setting: Setting) -> Speed | None:
        """The speed measured of exactly this, or None."""
        record = self._memory.get(setting.key) or {}
        kept = SECONDS_KEPT if record.get("steady") else SECONDS_SETTLED
        return _speed(record) if self._age(record) < kept else None

    def remember(self, setting: Setting, speed: Speed, *, steady: bool = True) -> None:
        """Keeps a measured speed; not for long if it was not steady."""
        self._memory.put(
            setting.key,
            {
                "prefill": speed.prefill,
                "decode": speed.decode,
                "steady": steady,
                "when": self._clock(),
            },
        )

    def doubt(self, settings: Iterable[Setting]) -> bool:
        """Makes the next choice between these measure, but for those that just were.

        Returns:
            Whether there was any other.
        """
        old = [s for s in settings if self._age(self._memory.get(s.key) or {}) > SECONDS_SETTLED]
        for setting in old:
            self._memory.put(setting.key, {"doubted": True})
        return bool(old)

    def is_doubted(self, setting: Setting) -> bool:
        """Whether a prediction will not do."""
        return bool((self._memory.get(setting.key) or {}).get("doubted"))

    def _age(self, record: dict[str, Any]) -> float:
        when = record.get("when")
        # A clock that was set back makes it old as well.
        return abs(self._clock() - when) if isinstance(when, int | float) else float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What a choice was made by, held against the answers that follow."""

    speeds: Speeds
    settings: tuple[Setting, ...]  # of all that could have been chosen
    speed: Speed

    def answered(self, timings: Timings, context_used: int) -> bool:
        """Compares an answer; returns whether the next choice will measure again."""
        if context_used > MOST_CONTEXT:
            return False
        rates = []
        if timings.decode_steps >= LEAST_STEPS and not timings.drafted_tokens:
            rates.append((self.speed.decode, 1 / timings.step_seconds))
        if timings.prompt_tokens - timings.cached_tokens >= LEAST_PROMPT:
            rates.append((self.speed.prefill, timings.prefill_tokens_per_second))
        if all(_is_near(expected, found) for expected, found in rates):
            return False
        return self.speeds.doubt(self.settings)


def _is_near(one: float, other: float) -> bool:
    return max(one, other) <= STEADY * min(one, other)


def _speed(record: dict[str, Any]) -> Speed | None:
    numbers = [record.get("prefill"), record.get("decode")]
    if not all(isinstance(number, float) and number > 0 for number in numbers):
        return None
    return Speed(prefill=record["prefill"], decode=record["decode"])


def measure(engine: Engine, plan: MemoryPlan, seconds: float) -> tuple[Speed, bool]:
    """Reads a prompt and generates, for at most about so long (three steps at least).

    Returns:
        The speed, and whether it was steady: nothing took the processor away meanwhile.
    """
    from statistics import median

    began = time.perf_counter()
    sequence = engine.open()

    def step(count: int) -> float:
        start = time.perf_counter()
        engine.step([Slice(sequence, [1] * count)])
        return time.perf_counter() - start

    try:
        step(1)  # pages come in, threads start
        single = step(1)
        room = max(1, (plan.context - 2) // 2)
        # As many as there is time for even if a prompt is read no faster than an answer.
        count = max(1, min(MEASURED_PROMPT, plan.batch, room, int(0.2 * seconds / single)))
        prompts = [single]
        if count > 1:
            prompts = [step(count) / count]
            engine.trim(sequence, 2)
            if time.perf_counter() - began < 0.5 * seconds:
                prompts.append(step(count) / count)
        answers = [single]
        # A second one at any rate: alone it could not be seen to be disturbed.
        while len(answers) < 2 or (
            len(answers) < min(MEASURED_ANSWER, room) and time.perf_counter() - began < seconds
        ):
            answers.append(step(1))
    finally:
        engine.close(sequence)
    # No engine reads a prompt slower than it generates.
    steady = _is_near(min(answers), median(answers)) and min(prompts) < STEADY * min(answers)
    return Speed(prefill=1 / min(prompts), decode=1 / median(answers)), steady
