"""Importance of a model's columns: fitted to the model that it is given for, and encoded with.

Each of stacked matrices (the experts of a mixture) has columns of its own importance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod

import numpy as np
from numpy.typing import NDArray

from edgeinfer.errors import UsageError
from edgeinfer.quant import QuantType, encode

_HINT = "it is of another model; make one with edgeinfer calibrate"


def fitted_importance(
    given: Mapping[str, NDArray[np.float32]], shapes: Mapping[str, Sequence[int]]
) -> dict[str, NDArray[np.float32]]:
    """Returns the importance of a model's matrices, (matrices, columns) each.

    Files without counts of their own for stacked matrices, as all old ones, have their columns
    one after the other; a single row is of all matrices.

    Args:
        given: by tensor, float32 (matrices, columns); may be empty.
        shapes: of the model's matrices, (rows, columns) or (matrices, rows, columns).

    Raises:
        UsageError: a matrix has other columns, or none is named.
    """
    if given and given.keys().isdisjoint(shapes):
        raise UsageError(
            "the importance matrix is of another model: it names none of this model's matrices",
            hint=_HINT.partition("; ")[2],
        )
    return {name: _fitted(name, given[name], shapes[name]) for name in given if name in shapes}


def _fitted(name: str, values: NDArray[np.float32], shape: Sequence[int]) -> NDArray[np.float32]:
    matrices, columns = prod(shape[:-2]), shape[-1]
    if values.size == matrices * columns and values.shape[0] in (1, matrices):
        return values.reshape(matrices, columns)
    if values.shape == (1, columns):
        return values
    raise UsageError(
        f"the importance matrix has {' x '.join(map(str, values.shape))} columns for {name!r}, "
        f"which has {matrices} x {columns}",
        hint=_HINT,
    )


def encode_rows(
    quant_type: QuantType,
    x: NDArray[np.float32],
    importance: NDArray[np.float32] | None,
    of: NDArray[np.int64],
    *,
    threads: int = 1,
) -> NDArray[np.uint8]:
    """Encodes rows of stacked matrices, each with the importance of its own matrix.

    Args:
        quant_type: the type to store them in.
        x: float32 (rows, columns).
        importance: float32 (matrices, columns), or one row for all; None counts all alike.
        of: (rows,) the number of each row's matrix, ascending.
        threads: native threads.

    Returns:
        uint8 (rows, row bytes).

    Raises:
        UsageError: columns is not whole blocks.
    """
    if importance is None or len(importance) == 1:
        alike = None if importance is None else importance[0]
        return encode(quant_type, x, threads=threads, importance=alike)
    starts = [0, *(np.flatnonzero(np.diff(of)) + 1).tolist(), len(x)]
    parts = [
        encode(quant_type, x[first:end], threads=threads, importance=importance[of[first]])
        for first, end in pairwise(starts)
    ]
    return np.concatenate(parts) if len(parts) > 1 else parts[0]
