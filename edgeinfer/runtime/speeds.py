"""How fast backends were here: remembered by everything that a speed hangs on.

A speed is found again for the same model file, device, threads, cache type and version of
the backend; when any of them changes, it is not. For another model of the same quant type
it predicts: both reading and generating go with the bytes of the weights.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeinfer.backends.base import Engine, Slice
from edgeinfer.device.profile import DeviceProfile
from edgeinfer.formats.remembered import Remembered
from edgeinfer.planner.plan import MemoryPlan
from edgeinfer.store.home import home

# What speeds are compared by: a question of so many tokens, and an answer.
PROMPT, ANSWER = 256, 128
MEASURED_PROMPT, MEASURED_ANSWER = 128, 48  # tokens of a measurement, if there is time


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Tokens per second."""

    prefill: float
    decode: float

    @property
    def turn_seconds(self) -> float:
        """The time of a question and its answer."""
        return PROMPT / self.prefill + ANSWER / self.decode

    def __str__(self) -> str:
        return f"{self.decode:.3g} tokens/s, prompt {self.prefill:.3g} tokens/s"


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
    weights_bytes: int

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
            weights_bytes=plan.weights_bytes,
        )

    @property
    def family(self) -> list[Any]:
        """What another model must have in common to predict this one's speed."""
        return [
            self.backend,
            self.version,
            self.machine,
            self.threads,
            self.batch_threads,
            self.gpu_layers,
            self.kv_types,
            self.quant,
        ]

    @property
    def key(self) -> str:
        """All of it."""
        return "|".join(map(str, [self.model, *self.family]))


class Speeds:
    """The speeds measured on this machine."""

    def __init__(self, path: Path | None = None) -> None:
        self._memory = Remembered(path or home() / "speeds.json")

    def recall(self, setting: Setting) -> Speed | None:
        """The speed measured of exactly this, or None."""
        return _speed(self._memory.get(setting.key) or {})

    def predict(self, setting: Setting) -> Speed | None:
        """The speed that other models of the same kind suggest, or None."""
        from statistics import median

        rates = []
        for _, record in self._memory.items():
            speed, weights = _speed(record), record.get("weights_bytes")
            if speed and isinstance(weights, int) and record.get("family") == setting.family:
                scale = weights / setting.weights_bytes
                rates.append((speed.prefill * scale, speed.decode * scale))
        if not rates:
            return None
        prefills, decodes = zip(*rates, strict=True)
        return Speed(prefill=median(prefills), decode=median(decodes))

    def remember(self, setting: Setting, speed: Speed) -> None:
        """Keeps a measured speed."""
        self._memory.put(
            setting.key,
            {
                "prefill": speed.prefill,
                "decode": speed.decode,
                "weights_bytes": setting.weights_bytes,
                "family": setting.family,
            },
        )


def _speed(record: dict[str, Any]) -> Speed | None:
    numbers = [record.get("prefill"), record.get("decode")]
    if not all(isinstance(number, float) and number > 0 for number in numbers):
        return None
    return Speed(prefill=record["prefill"], decode=record["decode"])


def measure(engine: Engine, plan: MemoryPlan, seconds: float) -> Speed:
    """Reads a prompt and generates, for at most about so long (two steps at least)."""
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
        while len(answers) < min(MEASURED_ANSWER, room) and (time.perf_counter() - began < seconds):
            answers.append(step(1))
    finally:
        engine.close(sequence)
    return Speed(prefill=1 / min(prompts), decode=1 / median(answers))
