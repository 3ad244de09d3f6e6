"""Tensors that several outputs are made of: what one has read and decoded, the others are given.

The outputs are written in step, a block of rows each, so that a few blocks are all there is to
keep.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeinfer.quant import QuantType
from edgeinfer_converters.quantize import BLOCK_VALUES
from edgeinfer_converters.tensors import Tensor, matrix_shape

# Blocks that are kept: outputs that join or reorder rows are up to three blocks apart, and are
# given rows of two blocks at a time.
MOST_BLOCKS = 8

Rows = NDArray[Any]


class _Blocks:
    """The blocks of rows that were made last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str, int], Rows] = OrderedDict()

    def get(self, key: tuple[str, str, int], make: Callable[[], Rows]) -> Rows:
        """Returns a block, made if it is not here."""
        found = self._kept.pop(key, None)
        if found is None:
            while len(self._kept) >= MOST_BLOCKS:  # before the new one takes its memory
                self._kept.popitem(last=False)
            found = make().view()
            found.flags.writeable = False  # it is everyone's
        self._kept[key] = found
        return found


@dataclass(frozen=True, slots=True)
class SharedTensor:
    """A tensor whose rows are read and decoded once for all."""

    tensor: Tensor
    blocks: _Blocks

    @property
    def name(self) -> str:
        """As the tensor's."""
        return self.tensor.name

    @property
    def shape(self) -> tuple[int, ...]:
        """As the tensor's."""
        return self.tensor.shape

    @property
    def exact_type(self) -> str:
        """As the tensor's."""
        return self.tensor.exact_type

    @property
    def stored_type(self) -> QuantType | None:
        """As the tensor's."""
        return self.tensor.stored_type

    def stored(self, type: QuantType, first: int, last: int) -> NDArray[np.uint8] | None:
        """As the tensor's; not to be written to."""
        if type != self.stored_type:
            return None

        def rows(start: int, end: int) -> Rows:
            found = self.tensor.stored(type, start, end)
            assert found is not None
            return found

        return self._rows(type.name, rows, first, last)

    def read(self, first: int, last: int) -> NDArray[np.float32]:
        """As the tensor's; not to be written to."""
        return self._rows("float32", self.tensor.read, first, last)

    def _rows(self, form: str, make: Callable[[int, int], Rows], first: int, last: int) -> Rows:
        count, columns = matrix_shape(self.tensor)
        step = max(1, BLOCK_VALUES // columns)

        def block(number: int) -> Rows:
            start = number * step
            return self.blocks.get(
                (self.name, form, number), lambda: make(start, min(start + step, count))
            )

        parts = [
            block(number)[max(first - number * step, 0) : last - number * step]
            for number in range(first // step, (last - 1) // step + 1)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def share(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Makes tensors that read and decode a block of rows once, while it is wanted."""
    blocks = _Blocks()
    return [SharedTensor(tensor, blocks) for tensor in tensors]
