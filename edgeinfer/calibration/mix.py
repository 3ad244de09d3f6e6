"""A mix of types to measure: from a source and a target to a type for every matrix."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np

from edgeinfer.calibration.opened import Opened, open_model
from edgeinfer.calibration.sensitivity import Importance, Measurement, measure
from edgeinfer.calibration.state import State, fingerprint
from edgeinfer.calibration.target import Target, planned_bytes
from edgeinfer.errors import UsageError
from edgeinfer.evaluation.chunks import Chunks
from edgeinfer.quant import QuantType, all_types, get
from edgeinfer.quant.allocation import Allocation, Option, allocate
from edgeinfer.quant.assignment import Overrides, has_choice, needs_importance, overridden
from edgeinfer.quant.importance import fitted_importance
from edgeinfer.quant.recipes import RECIPES, get_recipe
from edgeinfer.runtime.evaluation import text_chunks

CONTEXT = 256  # tokens a chunk
READ, SAMPLED = 4, 8  # chunks whose divergence is measured, and whose inputs are sampled
_FRONTIER = 40  # points of the frontier

Options = Mapping[str, Sequence[Option]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """What was found.

    Attributes:
        chosen: a type, its bytes and its divergence for each matrix.
        options: what there was to choose from.
        weights: weights of each matrix.
        others: bytes of the other tensors.
        frontier: for growing sizes (bytes of matrices, divergence), predicted.
    """

    chosen: Mapping[str, Option]
    options: Options
    weights: Mapping[str, int]
    others: int
    frontier: tuple[tuple[int, float], ...]

    @property
    def divergence(self) -> float:
        """Predicted: nats a token."""
        return sum(option.loss for option in self.chosen.values())

    @property
    def bits_per_weight(self) -> float:
        """Of the matrices."""
        return 8 * sum(o.nbytes for o in self.chosen.values()) / sum(self.weights.values())

    @property
    def recipe(self) -> str:
        """The recipe that the file is called after: that of the type most weights have."""
        counts: Counter[str] = Counter()
        for name, option in self.chosen.items():
            counts[option.type] += self.weights[name]
        for type_, _ in counts.most_common():
            if type_ in RECIPES or f"{type_}_m" in RECIPES:
                return get_recipe(type_).name
        return "f16"

    def overrides(self) -> Overrides:
        """The mix as ``convert`` takes it."""
        return Overrides(
            tensors=tuple(
                (f"^{re.escape(name)}$", option.type) for name, option in self.chosen.items()
            )
        )


def find_mix(
    path: Path,
    target: Target,
    text: str,
    importance: Importance,
    *,
    types: Sequence[QuantType] | None = None,
    fixed: Overrides | None = None,
    state: Path | None = None,
    read: int = READ,
    threads: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Mix:
    """Measures a model and chooses the types of its matrices.

    Args:
        path: a GGUF with float weights.
        target: what is wanted.
        text: to measure on.
        importance: of each matrix's columns, as the encoders will have it.
        types: to choose from; None for all quantised ones.
        fixed: types that are asked for and not to be chosen.
        state: where measurements are kept; those in it are not made again.
        read: chunks of text whose divergence is measured.
        threads: compute threads.
        progress: called with a tensor, the weights that are done, and all.

    Raises:
        UsageError: no mix of these types is small enough, the text is too short, importance is
            of another model, or a type that is asked for cannot be; all before measuring.
    """
    with open_model(path, context=CONTEXT, threads=threads) as opened:
        chunks = text_chunks(opened.tokenizer, text, context=CONTEXT)
        chosen_for = [m for m in opened.matrices if has_choice(m.name, m.shape)]
        weights = {m.name: prod(m.shape) for m in chosen_for}
        importance = fitted_importance(
            importance, {m.name: opened.file.tensors[m.name].shape for m in chosen_for}
        )
        total = sum(weights.values())
        what = Measurement(
            types=[t for t in types or all_types() if not t.is_float],
            importance=importance,
            sampled=_spread(chunks, SAMPLED),
            read=_spread(chunks, read),
            fixed=_fixed(opened, fixed or Overrides(), importance),
            threads=threads or 1,
        )
        possible = {
            m.name: [Option(t.name, t.nbytes(m.shape), 0.0) for t in what.types_of(m)]
            for m in chosen_for
        }
        _choose(opened, possible, target)  # what no mix can keep is refused before measuring
        options = measure(
            opened,
            what,
            State(state, _key(path, what)),
            progress=(lambda name, done: progress(name, done, total)) if progress else None,
        )
        chosen = _choose(opened, options, target)
        others = sum(i.nbytes for n, i in opened.file.tensors.items() if n not in options)
    return Mix(
        chosen=chosen.chosen,
        options=options,
        weights=weights,
        others=others,
        frontier=_frontier(options),
    )


def _choose(opened: Opened, options: Options, target: Target) -> Allocation:
    stored = {name: opened.file.tensors[name] for name in options}
    if target.memory is None:
        now = {name: info.nbytes for name, info in stored.items()}
        return allocate(options, target.limit(opened.file, now))
    limit = target.limit(
        opened.file, {name: _resident(info.type, info.nbytes) for name, info in stored.items()}
    )
    resident = {
        name: [replace(option, nbytes=_resident(option.type, option.nbytes)) for option in each]
        for name, each in options.items()
    }
    # Rows are packed in groups, and what is named after the types may count, too: ask the planner.
    for _ in range(8):
        types = {name: o.type for name, o in allocate(resident, limit).chosen.items()}
        over = planned_bytes(opened.file, types, target.context) - target.memory
        if over <= 0:
            chosen = {
                name: next(option for option in each if option.type == types[name])
                for name, each in options.items()
            }
            return Allocation(chosen=chosen)
        limit -= over
    raise UsageError("no mix was found whose plan fits the budget", hint="give a little more")


def _resident(type_: str, nbytes: int) -> int:
    """What a tensor of so many bytes in a file takes in the engine's memory."""
    kind = get(type_)
    return nbytes // kind.block_bytes * kind.packed_bytes


def _spread(chunks: Chunks, count: int) -> Chunks:
    """Some chunks, as far from each other as they can be."""
    count = min(count, len(chunks))
    middle = ((np.arange(count) + 0.5) * len(chunks) / count).astype(int)
    return replace(chunks, tokens=chunks.tokens[middle])


def _key(path: Path, what: Measurement) -> str:
    digest = hashlib.sha256()
    for name, values in sorted(what.importance.items()):
        digest.update(name.encode() + np.ascontiguousarray(values).tobytes())
    parts = [fingerprint(path), what.read.digest(), what.sampled.digest(), digest.hexdigest()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _fixed(opened: Opened, asked: Overrides, importance: Importance) -> dict[str, QuantType]:
    """The types that are asked for, by the names of matrices."""
    shapes = {name: info.shape for name, info in opened.file.tensors.items()}
    fixed = overridden(shapes, opened.engine.config, asked)
    for name, type_ in fixed.items():
        if needs_importance(name, type_) and name not in importance:
            raise UsageError(f"{name!r} cannot be {type_}: nothing is known of its columns")
    return fixed


def _frontier(options: Options) -> tuple[tuple[int, float], ...]:
    least = sum(min(o.nbytes for o in each) for each in options.values())
    most = sum(max(o.nbytes for o in each) for each in options.values())
    points = [allocate(options, int(limit)) for limit in np.linspace(least, most, _FRONTIER)]
    return tuple((point.nbytes, point.loss) for point in points)
