"""Quant types: how weights are stored in fewer bits, and recipes that choose among them.

The registry is the native extension's (`native/quant/types.inc`); nothing is listed twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import prod

import numpy as np
from numpy.typing import NDArray

import edgeinfer._native as _native
from edgeinfer.errors import UnsupportedError, UsageError, known_names


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantType:
    """One way to store a row of weights, as GGUF defines it."""

    name: str  # "q4_k"
    ggml_id: int  # the type number in a GGUF file
    block: int  # values a block; a row is whole blocks
    block_bytes: int
    packed_bytes: int  # of a block in the engine's memory; as many as block_bytes of most types
    is_float: bool  # f32, f16, bf16: no scales

    @property
    def bits_per_weight(self) -> float:
        """Bits a value takes, scales included."""
        return 8 * self.block_bytes / self.block

    @property
    def packed_bits_per_weight(self) -> float:
        """Bits a value takes in the engine's memory, scales included."""
        return 8 * self.packed_bytes / self.block

    def nbytes(self, shape: Sequence[int]) -> int:
        """Bytes of a tensor; the last axis of ``shape`` is the one that is cut in blocks.

        Raises:
            UsageError: the last axis is not whole blocks.
        """
        self._check_columns(shape[-1] if len(shape) else 1)
        return prod(shape) // self.block * self.block_bytes

    def packed_nbytes(self, shape: Sequence[int]) -> int:
        """Bytes of a matrix in the engine's memory, but for rows that pad the last sixteen."""
        return prod(shape) // self.block * self.packed_bytes

    def _check_columns(self, cols: int) -> None:
        if cols % self.block:
            raise UsageError(
                f"{self.name} stores rows of whole blocks of {self.block} values, not {cols}",
                hint="choose a type with a smaller block, such as q8_0 (32) or f16 (1)",
            )

    def __str__(self) -> str:
        return self.name


@cache
def all_types() -> tuple[QuantType, ...]:
    """Returns every quant type the extension was built with."""
    return tuple(
        QuantType(
            name=name,
            ggml_id=ggml_id,
            block=block,
            block_bytes=nbytes,
            packed_bytes=packed,
            is_float=is_float,
        )
        for name, ggml_id, block, nbytes, packed, is_float in _native.quant_types()
    )


def get(name: str) -> QuantType:
    """Returns the quant type called ``name``, in any case.

    Raises:
        UsageError: there is none.
    """
    for quant_type in all_types():
        if quant_type.name == name.lower():
            return quant_type
    hint = known_names(name, (quant_type.name for quant_type in all_types()))
    raise UsageError(f"no quant type is called {name!r}", hint=hint)


def by_ggml_id(ggml_id: int) -> QuantType:
    """Returns the quant type with the type number ``ggml_id`` of a GGUF file.

    Raises:
        UnsupportedError: a file uses a type this build cannot read.
    """
    for quant_type in all_types():
        if quant_type.ggml_id == ggml_id:
            return quant_type
    known = ", ".join(t.name for t in all_types())
    raise UnsupportedError(
        f"GGUF tensor type {ggml_id} is not supported", hint=f"supported types: {known}"
    )


def encode(
    quant_type: QuantType,
    x: NDArray[np.float32],
    *,
    threads: int = 1,
    importance: NDArray[np.float32] | None = None,
) -> NDArray[np.uint8]:
    """Encodes rows of weights.

    Args:
        quant_type: the type to store them in.
        x: float32 (rows, cols).
        threads: native threads; the rows are shared out, the result is the same for any number.
        importance: float32 (cols,): how much the squared error of each column counts, such as
            the mean square of the activations it meets. None counts all alike.

    Returns:
        uint8 (rows, row bytes).

    Raises:
        UsageError: cols is not whole blocks.
    """
    quant_type._check_columns(x.shape[-1])
    return _native.encode(
        quant_type.name,
        np.ascontiguousarray(x, dtype=np.float32),
        threads,
        None if importance is None else np.ascontiguousarray(importance, dtype=np.float32),
    )


def decode(quant_type: QuantType, data: NDArray[np.uint8], cols: int) -> NDArray[np.float32]:
    """Decodes rows of ``cols`` weights; the bits are those of the GGUF reference.

    Args:
        quant_type: the type they are stored in.
        data: uint8, any shape, of whole rows.
        cols: values a row.

    Returns:
        float32 (rows, cols).

    Raises:
        UsageError: cols is not whole blocks, or data is not whole rows.
    """
    row_bytes = quant_type.nbytes((cols,))
    if row_bytes == 0 or data.size % row_bytes:
        raise UsageError(f"{data.size} bytes are not rows of {cols} values of {quant_type.name}")
    rows = data.size // row_bytes
    return _native.decode(quant_type.name, np.ascontiguousarray(data), rows, cols)
