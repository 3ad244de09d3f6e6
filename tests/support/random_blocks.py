"""GGUF blocks of random bytes whose values are of ordinary size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeinfer import quant
from edgeinfer.quant import QuantType


def random_blocks(quant_type: QuantType, rows: int, cols: int, seed: int = 0) -> NDArray[np.uint8]:
    """Returns uint8 (rows, row bytes): any codes and scales of which a block's largest is near 1.

    Where the scales lie is the type's own affair: blocks that decode to something else are drawn
    again.
    """
    rng = np.random.default_rng([quant_type.ggml_id, rows, cols, seed])
    blocks = np.empty((rows * cols // quant_type.block, quant_type.block_bytes), dtype=np.uint8)
    odd = np.arange(len(blocks))
    while odd.size:
        blocks[odd] = rng.integers(0, 256, (odd.size, quant_type.block_bytes), np.uint8)
        with np.errstate(invalid="ignore"):
            largest = np.abs(quant.decode(quant_type, blocks[odd], quant_type.block)).max(axis=1)
        odd = odd[~((largest > 0.5) & (largest < 4))]
    return blocks.reshape(rows, -1)
