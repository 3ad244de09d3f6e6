"""Allocation: a type for every tensor, so that the loss is least and all fit a number of bytes.

A multiple-choice knapsack: each tensor has options of (bytes, loss), losses add up, and one option
of each tensor is taken. It is solved by dynamic programming over the bytes beyond the smallest
choice, in units so small that rounding up wastes next to nothing (Kellerer, Pferschy and Pisinger,
"Knapsack Problems", 2004, chapter 11). Where the unit is a byte, the solution is exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeinfer.errors import UsageError

UNITS = 1 << 16  # that the bytes are counted in, at most


@dataclass(frozen=True, slots=True)
class Option:
    """One way to store a tensor: its type's name, bytes, and what it costs in quality."""

    type: str
    nbytes: int
    loss: float


@dataclass(frozen=True, slots=True)
class Allocation:
    """An option per tensor, and what they amount to."""

    chosen: Mapping[str, Option]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(option.nbytes for option in self.chosen.values())

    @property
    def loss(self) -> float:
        """The sum of the losses."""
        return sum(option.loss for option in self.chosen.values())


Options = Mapping[str, Sequence[Option]]


def allocate(options: Options, limit: int) -> Allocation:
    """Chooses an option for each tensor.

    Args:
        options: of each tensor, at least one.
        limit: bytes that the chosen ones may take together.

    Raises:
        UsageError: even the smallest options do not fit.
    """
    useful = {name: _undominated(each) for name, each in options.items()}
    least = sum(each[0].nbytes for each in useful.values())
    if least > limit:
        raise UsageError(
            f"{least} bytes are the least that these types can do, {limit} are given",
            hint="give more room, or allow smaller types",
        )
    most = sum(each[-1].nbytes for each in useful.values())
    spare = min(limit, most) - least
    unit = max(1, -(-spare // UNITS))
    at = _solve(list(useful.values()), spare // unit, unit)
    chosen = {name: each[i] for (name, each), i in zip(useful.items(), at, strict=True)}
    _fill(useful, chosen, limit)
    return Allocation(chosen)


def _undominated(options: Sequence[Option]) -> list[Option]:
    """The options that no other beats in both size and loss, the smallest first."""
    kept: list[Option] = []
    for option in sorted(options, key=lambda o: (o.nbytes, o.loss)):
        if not kept or option.loss < kept[-1].loss:
            kept.append(option)
    return kept


def _solve(options: Sequence[Sequence[Option]], units: int, unit: int) -> list[int]:
    """Returns an option's index for each tensor; their costs add up to at most ``units``."""
    best = np.zeros(units + 1)  # the least loss of the tensors so far with so many units
    taken: list[NDArray[np.uint8]] = []
    for each in options:
        losses = np.full(units + 1, np.inf)
        index = np.zeros(units + 1, np.uint8)
        for i, option in enumerate(each):
            cost = _units(option, each, unit)
            if cost > units:
                break
            found = best[: units + 1 - cost] + option.loss
            better = found < losses[cost:]
            losses[cost:][better] = found[better]
            index[cost:][better] = i
        best = losses
        taken.append(index)
    left, chosen = units, []
    for each, index in zip(reversed(options), reversed(taken), strict=True):
        chosen.append(int(index[left]))
        left -= _units(each[chosen[-1]], each, unit)
    return chosen[::-1]


def _units(option: Option, each: Sequence[Option], unit: int) -> int:
    return -(-(option.nbytes - each[0].nbytes) // unit)


def _fill(options: Options, chosen: dict[str, Option], limit: int) -> None:
    """Uses what rounding has left: takes the single changes that lower the loss most."""
    left = limit - sum(option.nbytes for option in chosen.values())
    while True:
        moves = [
            (chosen[name].loss - new.loss, name, new)
            for name, each in options.items()
            for new in each
            if new.nbytes - chosen[name].nbytes <= left and new.loss < chosen[name].loss
        ]
        if not moves:
            return
        _, name, new = max(moves, key=lambda move: move[0])
        left -= new.nbytes - chosen[name].nbytes
        chosen[name] = new
