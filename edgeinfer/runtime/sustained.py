"""How speed holds: generating for a minute, in windows of a second, beside the heat.

A phone or a board generates its first sentences faster than its tenth: the processor heats up
and is slowed down. The burst is what a short benchmark shows, the end what a user of long
answers gets.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from edgeinfer.device.thermal import ThermalState
from edgeinfer.runtime.benchmark import Bench, Test

WINDOW_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """About a second of generating; of a model that takes longer, one token."""

    seconds: float
    tokens: int
    thermal: ThermalState  # at its end

    @property
    def tokens_per_second(self) -> float:
        """The speed."""
        return self.tokens / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Sustained:
    """The windows in order."""

    windows: tuple[Window, ...]

    @property
    def burst(self) -> float:
        """Tokens per second at the start: the median of the first tenth of the windows."""
        return median(w.tokens_per_second for w in self.windows[: self._tenth])

    @property
    def last(self) -> float:
        """Tokens per second at the end: the median of the last tenth of the windows."""
        return median(w.tokens_per_second for w in self.windows[-self._tenth :])

    @property
    def least(self) -> float:
        """Tokens per second of the slowest window."""
        return min(w.tokens_per_second for w in self.windows)

    @property
    def kept(self) -> float:
        """What is left of the burst at the end."""
        return self.last / self.burst

    @property
    def celsius(self) -> float | None:
        """The hottest that was read, if anything tells."""
        known = [w.thermal.celsius for w in self.windows if w.thermal.celsius is not None]
        return max(known, default=None)

    @property
    def reasons(self) -> tuple[str, ...]:
        """What slowed the processor down in any window; none where nothing tells."""
        return tuple(dict.fromkeys(r for w in self.windows for r in w.thermal.reasons))

    @property
    def throttled(self) -> bool:
        """Whether the system said in any window that it slows the processor down."""
        return any(w.thermal.throttled for w in self.windows)

    @property
    def _tenth(self) -> int:
        return -(-len(self.windows) // 10)


def sustain(
    bench: Bench,
    test: Test,
    seconds: float,
    *,
    thermal: Callable[[], ThermalState],
    progress: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Sustained:
    """Runs a test of generating again and again, from its depth each time.

    Args:
        bench: the engine.
        test: what generates; its ``new_tokens`` bound how far the context grows.
        seconds: how long in all; a window that has begun is finished.
        thermal: reads the heat, once a window.
        progress: called after each window.
        clock: in seconds.
    """
    windows: list[Window] = []
    bench.warm_up(test)
    began = start = clock()
    tokens = done = 0  # of the window; since the context was last cut
    while start - began < seconds:
        bench.generate()
        tokens += 1
        done += 1
        if done == test.new_tokens:
            bench.fill(test.depth)
            done = 0
        now = clock()
        if now - start >= WINDOW_SECONDS:
            windows.append(Window(seconds=now - start, tokens=tokens, thermal=thermal()))
            progress()
            start, tokens = clock(), 0
    bench.fill(test.depth)
    return Sustained(windows=tuple(windows))
