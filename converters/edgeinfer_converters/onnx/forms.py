"""How a matrix is stored for ONNX Runtime: floats, or whole numbers with a scale a block.

Of what MatMulNBits takes, only the forms that it multiplies fast on a processor are written:
2, 4 or 8 bits, symmetric, rows cut into blocks of 16 or 32 columns. A weight is
``(code - 2 ** (bits - 1)) * scale``; codes lie in their bytes with the first one lowest
(https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md).

Blocks may have an offset besides, as q4_1 and q4_k have. Whole zero points would round it to
steps of the scale, and with floats MatMulNBits is two hundred times slower; but what an offset
adds to a product is the offset times the sum of the block's inputs. So the offsets are a matrix
of their own, of a column a block, which the sums are multiplied with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeinfer.errors import UsageError, known_names
from edgeinfer.quant import encode, get
from edgeinfer_converters.onnx.gguf_blocks import (
    EXACT_BLOCKS,
    OFFSET_BLOCKS,
    Codes,
    Floats,
)
from edgeinfer_converters.quantize import check_values
from edgeinfer_converters.tensors import Tensor, matrix_shape

BLOCK = 32


@dataclass(frozen=True, slots=True)
class Form:
    """How a matrix is stored; ``bits`` 0 is the floats of the graph."""

    bits: int
    block: int = BLOCK
    has_offsets: bool = False

    @property
    def name(self) -> str:
        """As reports call it, such as "int4"."""
        if not self.bits:
            return "float"
        block = "" if self.block == BLOCK else f"/{self.block}"
        return f"int{self.bits}{block}" + ("+offsets" if self.has_offsets else "")


FLOAT = Form(0)


@dataclass(frozen=True, slots=True)
class Recipe:
    """The floats of the graph, and the bits of its matrices: of the blocks, and of the ends.

    The ends, embedding and output, are stored in more bits, as GGUF's recipes do.
    """

    floats: str
    bits: int = 0
    end_bits: int = 0


RECIPES: Mapping[str, Recipe] = {
    "f32": Recipe("f32"),
    "f16": Recipe("f16"),
    "int8": Recipe("f32", 8, 8),
    "int4": Recipe("f32", 4, 8),
    "int2": Recipe("f32", 2, 8),
}


def get_recipe(name: str) -> Recipe:
    """Returns a recipe.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in RECIPES:
        raise UsageError(f"no recipe for ONNX is called {name!r}", hint=known_names(name, RECIPES))
    return RECIPES[name]


# ---- GGUF types that keep their values -------------------------------------------------------

# Quant type -> the form that holds the same values.
EXACT: Mapping[str, Form] = {
    "q3_k": Form(4, 16),
    "q4_0": Form(4),
    "q5_0": Form(8),
    "q6_k": Form(8, 16),
    "q8_0": Form(8),
}
# Quant type -> the form that holds the same codes and scales; offsets are rounded to 8 bits.
NEAR: Mapping[str, Form] = {"q4_1": Form(4, has_offsets=True), "q4_k": Form(4, has_offsets=True)}


def own_form(tensor: Tensor, bits: int) -> Form | None:
    """The form that keeps a tensor's codes and scales, if there is one of at most so many bits."""
    if tensor.stored_type is not None:
        form = EXACT.get(tensor.stored_type.name) or NEAR.get(tensor.stored_type.name)
        return form if form and form.bits <= bits else None
    return None


# ---- encoding --------------------------------------------------------------------------------

_ENCODED_AS = {Form(4): "q4_0", Form(8): "q8_0", Form(4, has_offsets=True): "q4_1"}


@dataclass(frozen=True, slots=True)
class Encoded:
    """Rows of a matrix; ``offsets``, (rows, columns / block), where the form has them."""

    codes: Codes
    scales: Floats
    offsets: Floats | None = None


def encoded(
    tensor: Tensor,
    form: Form,
    first: int,
    last: int,
    *,
    threads: int,
    importance: NDArray[np.float32] | None = None,
) -> Encoded:
    """Returns rows of a tensor: its own codes and scales, or else encoded anew.

    Args:
        tensor: what to encode.
        form: how.
        first: its first row.
        last: the row after its last.
        threads: native threads.
        importance: float32 (columns,): how much the squared error of each column counts.
    """
    kept = tensor.stored_type
    if kept is not None and own_form(tensor, form.bits) == form:
        stored = tensor.stored(kept, first, last)
        assert stored is not None
        return _taken_apart(kept.name, stored)
    values = tensor.read(first, last)
    check_values(tensor.name, "", values)
    if form.bits == 2:
        return Encoded(*_two_bits(values, importance))
    type_ = get(_ENCODED_AS[form])
    data = encode(type_, values, threads=threads, importance=importance)
    return _taken_apart(type_.name, data)


def _taken_apart(type: str, data: NDArray[np.uint8]) -> Encoded:
    if type in OFFSET_BLOCKS:
        return Encoded(*OFFSET_BLOCKS[type](data))
    return Encoded(*EXACT_BLOCKS[type](data))


def offset_codes(offsets: Floats) -> tuple[Codes, Floats]:
    """Rounds offsets, (rows, blocks), to 8 bits; columns are filled up to whole blocks."""
    filled = np.pad(offsets, ((0, 0), (0, -offsets.shape[1] % BLOCK)))
    return EXACT_BLOCKS["q8_0"](encode(get("q8_0"), filled))


# Scales to try, as parts of the one that makes a block's largest weight an outer level.
_TWO_BIT_SCALES = (1.0, 0.8, 0.62, 0.46)
# The fit of least error leaves blocks short, which costs a model more than error does: so much of
# what is missing is given back, as native/quant/encode/scale.inl does, and at most as there.
_GIVEN_BACK, _MOST_LONGER = 0.7, 2


def _two_bits(
    values: NDArray[np.float32], importance: NDArray[np.float32] | None
) -> tuple[Codes, Floats]:
    """Levels -2, -1, 0 and 1 times a scale of either sign: of some scales the best one.

    A scale that is chosen is then the least squares' one of its codes, a little stretched.
    """
    rows, columns = values.shape
    blocks = values.reshape(rows, columns // BLOCK, BLOCK)
    weights = np.ones(columns, np.float32) if importance is None else importance
    weights = weights.reshape(1, -1, BLOCK)
    at = np.abs(blocks).argmax(axis=-1)[..., None]
    largest = np.take_along_axis(blocks, at, axis=-1) / np.float32(-2)
    best_gain = np.full((*blocks.shape[:-1], 1), -1, np.float32)
    best_levels = np.zeros(blocks.shape, np.int8)
    best_scale = np.zeros_like(best_gain)
    for part in _TWO_BIT_SCALES:
        scale = largest * np.float32(part)
        inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
        levels = np.clip(np.rint(blocks * inverse), -2, 1)
        weighted = levels * weights
        along = np.einsum("rbi,rbi->rb", weighted, blocks)[..., None]
        norm = np.einsum("rbi,rbi->rb", weighted, levels)[..., None]
        refined = np.divide(along, norm, out=np.zeros_like(along), where=norm != 0)
        gain = along * refined  # by how much the squared error is less than without any
        better = gain > best_gain
        np.copyto(best_levels, levels, where=better, casting="unsafe")
        np.copyto(best_scale, refined, where=better)
        np.copyto(best_gain, gain, where=better)
    energy = np.einsum("rbi,rbi->rb", blocks * weights, blocks)[..., None]
    longer = np.divide(energy, best_gain, out=np.ones_like(energy), where=best_gain > 0)
    best_scale *= 1 + np.float32(_GIVEN_BACK) * (np.minimum(longer, _MOST_LONGER) - 1)
    codes = (best_levels + 2).astype(np.uint8).reshape(rows, columns)
    return codes, best_scale[..., 0]


def packed(codes: Codes, bits: int) -> NDArray[np.uint8]:
    """Packs codes into bytes, (rows, columns * bits / 8), the first one lowest."""
    if bits == 8:
        return codes
    count = 8 // bits
    apart = codes.reshape(len(codes), -1, count)
    octets = apart[..., 0].copy()
    for i in range(1, count):
        octets |= apart[..., i] << np.uint8(i * bits)
    return octets


def unpacked(octets: NDArray[np.uint8], bits: int) -> Codes:
    """The reverse of ``packed``."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes: Codes = octets[..., None] >> shifts & np.uint8(2**bits - 1)
    return codes.reshape(len(octets), -1)


def fits(tensor: Tensor) -> bool:
    """True if rows are whole blocks."""
    return matrix_shape(tensor)[1] % BLOCK == 0
