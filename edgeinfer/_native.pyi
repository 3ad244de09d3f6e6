"""edgeinfer's native kernels, engine and sampler."""

from typing import Annotated

import numpy
from numpy.typing import NDArray

def quant_types() -> list[tuple[str, int, int, int, bool]]:
    """
    Returns (name, ggml_id, block, block_bytes, is_float) of every quant type.
    """

def encode(
    type_name: str,
    x: Annotated[
        NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu", writable=False)
    ],
    threads: int = 1,
    importance: Annotated[
        NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)
    ]
    | None = None,
) -> NDArray[numpy.uint8]:
    """
    Encodes float32 (rows, cols) to GGUF blocks, uint8 (rows, row_bytes). importance (cols,) weighs the squared error.
    """

def decode(
    type_name: str,
    data: Annotated[NDArray[numpy.uint8], dict(order="C", device="cpu", writable=False)],
    rows: int,
    cols: int,
) -> NDArray[numpy.float32]:
    """Decodes GGUF blocks to float32 (rows, cols)."""

def pack(
    type_name: str,
    data: Annotated[NDArray[numpy.uint8], dict(order="C", device="cpu", writable=False)],
    rows: int,
    cols: int,
) -> NDArray[numpy.uint8]:
    """
    Packs GGUF blocks (rows, cols) into the layout of native/quant/packed.h.
    """

def unpack_row(
    type_name: str,
    packed: Annotated[NDArray[numpy.uint8], dict(order="C", device="cpu", writable=False)],
    rows: int,
    cols: int,
    row: int,
) -> NDArray[numpy.float32]:
    """Decodes one row of a packed matrix, float32 (cols,)."""
