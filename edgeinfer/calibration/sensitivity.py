"""Sensitivity: what it costs, in divergence, to store each matrix as each type.

For each matrix the output error of every type is computed from samples of its inputs. How much such
an error changes what the model says is measured once per matrix, by giving the engine the matrix as
a type of few bits would leave it; small divergences grow as the squared error does, so the other
types follow by proportion. Matrices with a large share of the weights are measured type by type.
Divergences of different matrices nearly add up (the errors are nearly independent), which is what
allocation relies on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

from edgeinfer.calibration.effect import Effect
from edgeinfer.calibration.errors import Samples, output_errors, sample_inputs
from edgeinfer.calibration.inputs import MatrixSource
from edgeinfer.calibration.opened import Opened
from edgeinfer.calibration.state import State
from edgeinfer.calibration.weights import put, restore, rounded, values
from edgeinfer.evaluation.chunks import Chunks
from edgeinfer.quant import QuantType, get
from edgeinfer.quant.allocation import Option
from edgeinfer.quant.assignment import has_choice, needs_importance

PROBE_BITS = 3.5  # a weight: the type nearest to this is what a matrix's effect is measured with
LARGE = 0.05  # a share of all weights from which on every type is measured

Importance = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What to measure with.

    Attributes:
        types: to choose from.
        importance: for the encoders, as ``convert`` will have it.
        sampled: the text whose inputs are sampled.
        read: the text, a part of it is enough, whose divergence is measured.
        fixed: matrices that have one type to choose from.
        threads: of the encoders.
    """

    types: Sequence[QuantType]
    importance: Importance
    sampled: Chunks
    read: Chunks
    fixed: Mapping[str, QuantType] = field(default_factory=dict)
    threads: int = 1

    def types_of(self, matrix: MatrixSource) -> list[QuantType]:
        """The types that a matrix can be stored as; f16 if it is none of those wanted."""
        if matrix.name in self.fixed:
            return [self.fixed[matrix.name]]
        known = matrix.name in self.importance
        return [
            t
            for t in self.types
            if matrix.shape[1] % t.block == 0 and (known or not needs_importance(matrix.name, t))
        ] or [get("f16")]


Progress = Callable[[str, int], None]  # told a tensor and the weights that are done


def measure(
    opened: Opened,
    what: Measurement,
    state: State,
    *,
    progress: Progress | None = None,
) -> dict[str, list[Option]]:
    """Returns each matrix's options: type, bytes in the file, divergence in nats a token.

    Args:
        opened: the model with float weights; it has them again in the end.
        what: to measure with.
        state: what is in it is not measured again; what is measured is put there.
        progress: called after each matrix.
    """
    run = _Run(opened, what, state)
    matrices = [m for m in opened.matrices if has_choice(m.name, m.shape)]
    total = sum(prod(matrix.shape) for matrix in matrices)
    options, done = {}, 0
    for matrix in matrices:
        options[matrix.name] = run.options(matrix, prod(matrix.shape) > LARGE * total)
        done += prod(matrix.shape)
        if progress is not None:
            progress(matrix.name, done)
    state.write()
    return options


class _Run:
    """The texts are read when the first number is missing."""

    def __init__(self, opened: Opened, what: Measurement, state: State) -> None:
        self._opened, self._what, self._state = opened, what, state
        self._samples: Samples | None = None
        self._effect: Effect | None = None

    def options(self, matrix: MatrixSource, large: bool) -> list[Option]:
        types = self._what.types_of(matrix)
        errors = self._errors(matrix, types)
        probe = min(types, key=lambda t: (abs(t.bits_per_weight - PROBE_BITS), errors[t.name]))
        probes = types if large else [probe]
        effects = {t.name: self._divergence(matrix, t) for t in probes}
        slope = effects[probe.name] / max(errors[probe.name], 1e-30)
        return [
            Option(t.name, t.nbytes(matrix.shape), effects.get(t.name, slope * errors[t.name]))
            for t in types
        ]

    def _errors(self, matrix: MatrixSource, types: Sequence[QuantType]) -> dict[str, float]:
        state, name = self._state, matrix.name
        missing = [t for t in types if state.get(name, f"error {t}") is None]
        if missing:
            if self._samples is None:
                self._samples = sample_inputs(self._opened, self._what.sampled)
            found = output_errors(
                matrix,
                values(self._opened, matrix),
                missing,
                self._samples[matrix.field, matrix.layer][:, : matrix.shape[1]]
                if matrix.field
                else None,
                self._importance(matrix),
                threads=self._what.threads,
            )
            state.put(name, {f"error {type_}": error for type_, error in found.items()})
        return {t.name: state.numbers[name][f"error {t}"] for t in types}

    def _divergence(self, matrix: MatrixSource, type_: QuantType) -> float:
        known = self._state.get(matrix.name, f"divergence {type_}")
        if known is not None:
            return known
        if self._effect is None:
            self._effect = Effect(self._opened, self._what.read)
        weights, importance = values(self._opened, matrix), self._importance(matrix)
        put(
            self._opened,
            matrix,
            rounded(weights, type_, importance, matrix.of_rows(), threads=self._what.threads),
        )
        found = self._effect.divergence()
        restore(self._opened, matrix)
        self._state.put(matrix.name, {f"divergence {type_}": found})
        return found

    def _importance(self, matrix: MatrixSource) -> NDArray[np.float32] | None:
        return self._what.importance.get(matrix.name)
