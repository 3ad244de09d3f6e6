"""An eye on the machine while a model generates, and on the model for ``edgeinfer ps``.

Memory that runs short and heat make everything slow and end nothing: each is told once, as a
warning. It is looked at between steps, in the thread that steps; all steps but one a second pay
for a look at the clock only.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edgeinfer.device.pressure import Pressure
from edgeinfer.device.thermal import ThermalState
from edgeinfer.runtime.running import Listed
from edgeinfer.runtime.sequence import Sequence
from edgeinfer.runtime.speeds import Expectation
from edgeinfer.types import Timings

EVERY = 1.0  # seconds between two updates of the list
CHECK_EVERY = 5.0  # seconds between two looks at the machine, and before the first

_log = logging.getLogger("edgeinfer")


class Meter(Protocol):
    """Reads whether memory is short, such as ``pressure.LinuxMeter``."""

    def read(self) -> Pressure:
        """One reading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What there is to look at."""

    meter: Meter
    thermal: Callable[[], ThermalState]

    @classmethod
    def this(cls) -> Machine:
        """This one."""
        from edgeinfer.device import pressure, thermal

        return cls(meter=pressure.meter(), thermal=thermal.read)


class Watch:
    """Watches while one model's sequences are read."""

    def __init__(
        self,
        listed: Listed | None = None,
        *,
        expectation: Expectation | None = None,
        machine: Callable[[], Machine] = Machine.this,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listed = listed
        self._expectation = expectation
        self._find = machine
        self._machine: Machine | None = None
        self._clock = clock
        self._looking = threading.Lock()
        self._due = clock() + EVERY
        self._check_due = clock() + CHECK_EVERY
        self._seen: tuple[Sequence | None, int, float] = (None, 0, 0.0)
        self._told: set[str] = set()
        self._most_celsius: float | None = None
        self._most_stalled: float | None = None

    def step(self, sequence: Sequence) -> None:
        """A step is over that read tokens of a sequence."""
        now = self._clock()
        # Of several threads one looks.
        if now < self._due or not self._looking.acquire(blocking=False):
            return
        try:
            self._due = now + EVERY
            self._update(sequence, now)
            if now >= self._check_due:
                self._check_due = now + CHECK_EVERY
                self._check()
        finally:
            self._looking.release()

    def finished(self, sequence: Sequence, timings: Timings) -> None:
        """An answer is complete."""
        if self._listed is not None:
            self._listed.update(
                context_used=len(sequence.cached),
                tokens_per_second=timings.decode_tokens_per_second
                or self._listed.entry.tokens_per_second,
            )
        # Once is enough, and of slowness that was told the cause is known.
        expected = self._expectation
        if expected and not self._told and expected.answered(timings, len(sequence.cached)):
            self._expectation = None
        if self._most_celsius is not None or self._most_stalled is not None:
            heat = "unknown" if self._most_celsius is None else f"{self._most_celsius:.0f} degrees"
            stalled = "unknown" if self._most_stalled is None else f"{self._most_stalled:.0%}"
            _log.info("while generating: heat %s, time lost to short memory %s", heat, stalled)

    def lent(self) -> None:
        """The engine is out for measurements, of which nothing is told here."""
        if self._listed is not None:
            self._listed.update(context_used=None, tokens_per_second=None)

    def close(self) -> None:
        """The model is closed."""
        if self._listed is not None:
            self._listed.remove()

    def _update(self, sequence: Sequence, now: float) -> None:
        used = len(sequence.cached)
        before, used_before, then = self._seen
        self._seen = (sequence, used, now)
        if self._listed is None:
            return
        rate = self._listed.entry.tokens_per_second
        if before is sequence and used > used_before and now - then < 2 * EVERY:
            rate = (used - used_before) / (now - then)
        self._listed.update(context_used=used, tokens_per_second=rate)

    def _check(self) -> None:
        if self._machine is None:
            self._machine = self._find()
        memory, heat = self._machine.meter.read(), self._machine.thermal()
        self._most_stalled = _most(self._most_stalled, memory.stalled)
        self._most_celsius = _most(self._most_celsius, heat.celsius)
        if memory.short:
            self._tell(
                "memory",
                f"memory is short ({memory.reason}): generating slows down; close other "
                "programs, or use a shorter context (-c) or a smaller quantisation",
            )
        if heat.throttled:
            self._tell(
                "heat",
                f"the processor is slowed down ({', '.join(heat.reasons)}): so is generating",
            )

    def _tell(self, kind: str, warning: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            _log.warning("%s", warning)


def _most(before: float | None, now: float | None) -> float | None:
    return max((value for value in (before, now) if value is not None), default=None)
