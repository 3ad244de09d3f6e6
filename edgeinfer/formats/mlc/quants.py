"""The ways MLC LLM stores weights, by the names its users know.

"q4f16_1" is 4-bit codes, float16 everywhere else, layout 1. A group of weights along a row has
one scale; a code is worth ``(code - offset) * scale``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from edgeinfer.errors import UsageError, known_names

WORD_BITS = 32  # codes are packed in words of so many


@dataclass(frozen=True, slots=True, kw_only=True)
class Quant:
    """One way to store a model.

    Attributes:
        name: MLC LLM's.
        dtype: of scales, norms, biases and of what is not quantised.
        bits: of a code; 0 for none.
        group: weights that share a scale.
        transposed: matrices but the embedding are stored as (words, rows).
        ends: the embedding and the output matrix are quantised as well.
    """

    name: str
    dtype: str
    bits: int = 0
    group: int = 0
    transposed: bool = False
    ends: bool = True

    @property
    def offset(self) -> int:
        """The code that stands for zero."""
        return (1 << self.bits - 1) - 1

    @property
    def codes_per_word(self) -> int:
        """Codes in a word of 32 bits; two bits of it are left when they have three."""
        return WORD_BITS // self.bits

    @property
    def words_per_group(self) -> int:
        """Words that hold a group's codes."""
        return self.group // self.codes_per_word

    def groups(self, columns: int) -> int:
        """Returns how many groups a row has; the last may be padded."""
        return -(-columns // self.group)


_ALL = (
    Quant(name="q0f32", dtype="float32"),
    Quant(name="q0f16", dtype="float16"),
    Quant(name="q0bf16", dtype="bfloat16"),
    Quant(name="q3f16_0", dtype="float16", bits=3, group=40, transposed=True),
    Quant(name="q3f16_1", dtype="float16", bits=3, group=40),
    Quant(name="q4f16_0", dtype="float16", bits=4, group=32, transposed=True),
    Quant(name="q4f16_1", dtype="float16", bits=4, group=32),
    Quant(name="q4f16_2", dtype="float16", bits=4, group=32, ends=False),
    Quant(name="q4bf16_1", dtype="bfloat16", bits=4, group=32),
    Quant(name="q4f32_1", dtype="float32", bits=4, group=32),
)
QUANTS: Mapping[str, Quant] = MappingProxyType({quant.name: quant for quant in _ALL})


# Names that mean a form in every format.
ANY_FORMAT: Mapping[str, str] = MappingProxyType(
    {"f32": "q0f32", "f16": "q0f16", "int4": "q4f16_1"}
)


def get_quant(name: str) -> Quant:
    """Returns the way to store a model called ``name``, in any case.

    Raises:
        UsageError: MLC LLM has none of this name, or none that can be written here.
    """
    name = name.lower()
    found = QUANTS.get(ANY_FORMAT.get(name, name))
    if found is None:
        bits = "no form of 8 bits" if name in ("int8", "q8_0") else f"no form {name!r}"
        raise UsageError(f"MLC LLM has {bits}", hint=known_names(name, QUANTS))
    return found
