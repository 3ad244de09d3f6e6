"""A file's matrices as the measurements need them: values, encoded, and put into the engine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeinfer import quant
from edgeinfer.calibration.inputs import MatrixSource
from edgeinfer.calibration.opened import Opened
from edgeinfer.quant import QuantType
from edgeinfer.quant.importance import encode_rows


def values(opened: Opened, matrix: MatrixSource) -> NDArray[np.float32]:
    """A matrix as float32 (rows, columns)."""
    type_ = quant.get(opened.file.tensors[matrix.name].type)
    return quant.decode(type_, opened.file.data(matrix.name), matrix.shape[1])


def rounded(
    weights: NDArray[np.float32],
    type_: QuantType,
    importance: NDArray[np.float32] | None,
    of: NDArray[np.int64],
    *,
    threads: int = 1,
) -> NDArray[np.float32]:
    """What is left of rows that were stored as a type, as ``encode_rows`` does it."""
    stored = encode_rows(type_, weights, importance, of, threads=threads)
    return quant.decode(type_, stored, weights.shape[1])


def put(opened: Opened, matrix: MatrixSource, weights: NDArray[np.float32]) -> None:
    """Gives the engine other values for a matrix, in the float type that it was loaded with."""
    type_ = quant.get(opened.file.tensors[matrix.name].type)
    for part in matrix.parts:
        rows = weights[part.start : part.start + part.count]
        opened.engine.replace(part.name, quant.encode(type_, rows).reshape(-1))


def restore(opened: Opened, matrix: MatrixSource) -> None:
    """Gives the engine the file's values again."""
    row_bytes = opened.file.tensors[matrix.name].nbytes // matrix.shape[0]
    data = opened.file.data(matrix.name)
    for part in matrix.parts:
        end = (part.start + part.count) * row_bytes
        opened.engine.replace(part.name, data[part.start * row_bytes : end])
