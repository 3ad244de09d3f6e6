"""Encodes tensors a block of rows at a time, on all processors, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np
from numpy.typing import NDArray

from edgeinfer.errors import CorruptFileError, UnsupportedError
from edgeinfer.quant import QuantType
from edgeinfer.quant.importance import encode_rows
from edgeinfer_converters.tensors import Tensor, matrix_shape

# float32 values held at a time: enough for every thread to have work, little beside a model.
BLOCK_VALUES = 1 << 20
LARGEST_F16 = 65504.0


def encoded_blocks(
    tensor: Tensor,
    type: QuantType,
    *,
    threads: int,
    importance: NDArray[np.float32] | None = None,
) -> Iterator[NDArray[np.uint8]]:
    """Yields the bytes of a tensor in ``type``, block of rows by block of rows.

    Args:
        tensor: what to encode.
        type: what to store it as.
        threads: native threads.
        importance: float32 (matrices, columns), as ``fitted_importance`` returns it: how much the
            squared error of each column counts. Rows that the source has in ``type`` already are
            copied, whatever the importance.

    Raises:
        CorruptFileError: a weight is infinite or not a number.
        UnsupportedError: a weight is too large for the type.
    """
    rows, columns = matrix_shape(tensor)
    step = max(1, BLOCK_VALUES // columns)
    for first in range(0, rows, step):
        last = min(first + step, rows)
        values = tensor.read(first, last)
        check_values(tensor.name, type.name, values)
        stored = tensor.stored(type, first, last)
        if stored is None:
            of = np.arange(first, last) * prod(tensor.shape[:-2]) // rows
            stored = encode_rows(type, values, importance, of, threads=threads)
        yield stored


def check_values(name: str, type: str, values: NDArray[np.float32]) -> None:
    """Checks that a type, by its name, can hold values.

    Raises:
        CorruptFileError: a value is infinite or not a number.
        UnsupportedError: a value is too large for the type.
    """
    # Not abs(values).max(), which would take as much memory again. NaN wins over numbers.
    largest = float(np.maximum(values.max(), -values.min()))
    if not np.isfinite(largest):
        raise CorruptFileError(f"tensor {name!r} has a weight that is not a finite number")
    if type == "f16" and largest > LARGEST_F16:
        raise UnsupportedError(
            f"tensor {name!r} has the weight {largest:g}, too large for f16",
            hint="convert to bf16 or f32",
        )
