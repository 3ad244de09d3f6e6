"""How a matrix is stored for ONNX Runtime: floats, or whole numbers with a scale a block.

Of what MatMulNBits takes, only the forms that it multiplies fast on a processor are written:
2, 4 or 8 bits, symmetric, rows cut into blocks of 16 or 32 columns. A weight is
``(code - 2 ** (bits - 1)) * scale``; codes lie in their bytes with the first one lowest
(https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeinfer.errors import UsageError
from edgeinfer.quant import encode, get
from edgeinfer_converters.quantize import check_values
from edgeinfer_converters.tensors import Tensor, matrix_shape

Codes = NDArray[np.uint8]  # (rows, columns), one a byte
Scales = NDArray[np.float32]  # (rows, columns / block)

BLOCK = 32


@dataclass(frozen=True, slots=True)
class Form:
    """How a matrix is stored; ``bits`` 0 is the floats of the graph."""

    bits: int
    block: int = BLOCK

    @property
    def name(self) -> str:
        """As reports call it, such as "int4"."""
        if not self.bits:
            return "float"
        return f"int{self.bits}" + ("" if self.block == BLOCK else f"/{self.block}")


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
        known = ", ".join(RECIPES)
        raise UsageError(f"no recipe for ONNX is called {name!r}", hint=f"use one of {known}")
    return RECIPES[name]


# ---- GGUF types that keep their values -------------------------------------------------------


def _q4_0(data: NDArray[np.uint8]) -> tuple[Codes, Scales]:
    rows, _ = data.shape
    blocks = data.reshape(rows, -1, 18)
    low_and_high = [blocks[..., 2:] & 15, blocks[..., 2:] >> 4]
    return np.concatenate(low_and_high, axis=-1).reshape(rows, -1), _halves(blocks[..., :2])


def _q5_0(data: NDArray[np.uint8]) -> tuple[Codes, Scales]:
    rows, _ = data.shape
    blocks = data.reshape(rows, -1, 22)
    low = np.concatenate([blocks[..., 6:] & 15, blocks[..., 6:] >> 4], axis=-1)
    fifth: Codes = np.unpackbits(blocks[..., 2:6], axis=-1, bitorder="little")
    codes: Codes = (low | fifth << np.uint8(4)) + np.uint8(128 - 16)
    return codes.reshape(rows, -1), _halves(blocks[..., :2])


def _q8_0(data: NDArray[np.uint8]) -> tuple[Codes, Scales]:
    rows, _ = data.shape
    blocks = data.reshape(rows, -1, 34)
    return (blocks[..., 2:] ^ np.uint8(128)).reshape(rows, -1), _halves(blocks[..., :2])


def _q6_k(data: NDArray[np.uint8]) -> tuple[Codes, Scales]:
    """A super-block is two halves of 128: 64 bytes of low bits, 32 of the two high ones."""
    rows, _ = data.shape
    blocks = data.reshape(rows, -1, 210)
    low = blocks[..., :128].reshape(rows, -1, 2, 2, 32)  # half, columns of 32
    high = blocks[..., 128:192].reshape(rows, -1, 2, 1, 32)
    quarters = [
        (low & 15) | (high >> np.array([[0], [2]], np.uint8) & 3) << 4,
        (low >> 4) | (high >> np.array([[4], [6]], np.uint8) & 3) << 4,
    ]
    codes = np.concatenate(quarters, axis=-2) + np.uint8(128 - 32)
    scales = blocks[..., 192:208].view(np.int8) * _halves(blocks[..., 208:])[..., None]
    return codes.reshape(rows, -1), scales.astype(np.float32).reshape(rows, -1)


def _halves(octets: NDArray[np.uint8]) -> Scales:
    return np.ascontiguousarray(octets).view(np.float16)[..., 0].astype(np.float32)


# Quant type -> the form that holds the same values, and how to take its blocks apart.
EXACT: Mapping[str, tuple[Form, Callable[[NDArray[np.uint8]], tuple[Codes, Scales]]]] = {
    "q4_0": (Form(4), _q4_0),
    "q5_0": (Form(8), _q5_0),
    "q6_k": (Form(8, 16), _q6_k),
    "q8_0": (Form(8), _q8_0),
}


def exact_form(tensor: Tensor, bits: int) -> Form | None:
    """The form that keeps a tensor's values, if there is one of at most so many bits."""
    if tensor.stored_type is not None and tensor.stored_type.name in EXACT:
        form = EXACT[tensor.stored_type.name][0]
        return form if form.bits <= bits else None
    return None


# ---- encoding --------------------------------------------------------------------------------

_ENCODED_AS = {4: "q4_0", 8: "q8_0"}


def encoded(
    tensor: Tensor, form: Form, first: int, last: int, *, threads: int
) -> tuple[Codes, Scales]:
    """Returns rows of a tensor as codes and scales: its own, or else encoded anew."""
    kept = tensor.stored_type
    if kept is not None and exact_form(tensor, form.bits) == form:
        stored = tensor.stored(kept, first, last)
        assert stored is not None
        return EXACT[kept.name][1](stored)
    values = tensor.read(first, last)
    check_values(tensor.name, "", values)
    if form.bits == 2:
        return _two_bits(values)
    type_ = get(_ENCODED_AS[form.bits])
    return EXACT[type_.name][1](encode(type_, values, threads=threads))


# Scales to try, as parts of the one that makes a block's largest weight an outer level.
_TWO_BIT_SCALES = (1.0, 0.8, 0.62, 0.46)


def _two_bits(values: NDArray[np.float32]) -> tuple[Codes, Scales]:
    """Levels -2, -1, 0 and 1 times a scale of either sign: of some scales the best one.

    A scale that is chosen is then the least squares' one of its codes.
    """
    rows, columns = values.shape
    blocks = values.reshape(rows, columns // BLOCK, BLOCK)
    at = np.abs(blocks).argmax(axis=-1)[..., None]
    largest = np.take_along_axis(blocks, at, axis=-1) / np.float32(-2)
    best_gain = np.full((*blocks.shape[:-1], 1), -1, np.float32)
    best_levels = np.zeros(blocks.shape, np.int8)
    best_scale = np.zeros_like(best_gain)
    for part in _TWO_BIT_SCALES:
        scale = largest * np.float32(part)
        inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
        levels = np.clip(np.rint(blocks * inverse), -2, 1)
        along = np.einsum("rbi,rbi->rb", levels, blocks)[..., None]
        norm = np.einsum("rbi,rbi->rb", levels, levels)[..., None]
        refined = np.divide(along, norm, out=np.zeros_like(along), where=norm != 0)
        gain = along * refined  # by how much the squared error is less than without any
        better = gain > best_gain
        np.copyto(best_levels, levels, where=better, casting="unsafe")
        np.copyto(best_scale, refined, where=better)
        np.copyto(best_gain, gain, where=better)
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


def fits(tensor: Tensor) -> bool:
    """True if rows are whole blocks."""
    return matrix_shape(tensor)[1] % BLOCK == 0
