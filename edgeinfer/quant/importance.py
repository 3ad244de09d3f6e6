"""Importance of a model's columns, checked against the model that it is given for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgeinfer.errors import UsageError

_HINT = "make one with edgeinfer calibrate"


def check_importance(
    given: Mapping[str, NDArray[np.float32]], shapes: Mapping[str, Sequence[int]]
) -> None:
    """Checks that importance is of a model.

    Args:
        given: by tensor, float32 (matrices, columns); may be empty.
        shapes: of the model's matrices; the last axis is the columns.

    Raises:
        UsageError: a matrix has other columns, or none is named.
    """
    if given and given.keys().isdisjoint(shapes):
        raise UsageError(
            "the importance matrix is of another model: it names none of this model's matrices",
            hint=_HINT,
        )
    for name in given.keys() & shapes.keys():
        columns, expected = given[name].shape[-1], shapes[name][-1]
        if columns != expected:
            raise UsageError(
                f"the importance matrix has {columns} columns for {name!r}, which has {expected}",
                hint=f"it is of another model; {_HINT}",
            )
