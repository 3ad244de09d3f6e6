"""Recipes: which quant type each tensor of a model gets.

The names and the choices are llama.cpp's (``llama-quantize``), so that a size, a speed or a
quality that somebody quotes for ``q4_k_m`` is true of our files too. A recipe is data: a type
for most matrices, one for the output, and rules for roles that deserve more bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgeinfer.arch.config import ModelConfig
from edgeinfer.errors import UsageError
from edgeinfer.quant import QuantType, get

Condition = Callable[[int, ModelConfig], bool]  # of a layer's number and the model


@dataclass(frozen=True, slots=True)
class Rule:
    """Tensors of ``role`` are stored as ``type`` in the layers where ``condition`` holds."""

    role: str  # the tensor's name without "blk.N." and ".weight"
    type: str
    condition: Condition


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A mix of quant types. The first rule that applies wins."""

    name: str
    base: str  # the type of matrices without a rule
    output: str = "q6_k"  # the output matrix, and the embedding where it is both
    rules: tuple[Rule, ...] = ()
    about: str


def _always(_layer: int, _config: ModelConfig) -> bool:
    return True


def _first(count: int) -> Condition:
    return lambda layer, _config: layer < count


def _first_part(divisor: int) -> Condition:
    return lambda layer, config: layer < config.layers // divisor


def _more_bits(layer: int, config: ModelConfig) -> bool:
    """The first and the last eighth of the layers and every third between."""
    n = config.layers
    return layer < n // 8 or layer >= 7 * n // 8 or (layer - n // 8) % 3 == 2


def _shared_by_four(_layer: int, config: ModelConfig) -> bool:
    """Four query heads or more share a value head: attn_v is small and matters more."""
    return config.heads // config.kv_heads >= 4


def _values(type_: str, condition: Condition) -> tuple[Rule, ...]:
    """attn_v, also where it is part of one fused matrix."""
    return Rule("attn_v", type_, condition), Rule("attn_qkv", type_, condition)


_IQ4_RULES = (*_values("q5_k", _shared_by_four), Rule("ffn_down", "q5_k", _first_part(8)))

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(name="f32", base="f32", output="f32", about="32-bit floats, nothing lost"),
        Recipe(name="f16", base="f16", output="f16", about="16-bit floats"),
        Recipe(name="bf16", base="bf16", output="bf16", about="16-bit floats with float32's range"),
        Recipe(name="q8_0", base="q8_0", output="q8_0", about="8 bits, hardly different from f16"),
        Recipe(name="q6_k", base="q6_k", about="6 bits, a very small loss"),
        Recipe(
            name="q5_k_m",
            base="q5_k",
            rules=(*_values("q6_k", _more_bits), Rule("ffn_down", "q6_k", _more_bits)),
            about="5 bits, a small loss",
        ),
        Recipe(name="q5_k_s", base="q5_k", about="5 bits, all layers alike"),
        Recipe(
            name="q4_k_m",
            base="q4_k",
            rules=(*_values("q6_k", _more_bits), Rule("ffn_down", "q6_k", _more_bits)),
            about="4 bits, the usual compromise",
        ),
        Recipe(
            name="q4_k_s",
            base="q4_k",
            rules=(*_values("q5_k", _first(4)), Rule("ffn_down", "q5_k", _first_part(8))),
            about="4 bits, smaller than q4_k_m",
        ),
        Recipe(name="iq4_nl", base="iq4_nl", rules=_IQ4_RULES, about="4 bits, uneven levels"),
        Recipe(
            name="iq4_xs",
            base="iq4_xs",
            rules=_IQ4_RULES,
            about="a little over 4 bits, uneven levels",
        ),
        Recipe(
            name="q3_k_l",
            base="q3_k",
            rules=(
                *_values("q5_k", _always),
                Rule("ffn_down", "q5_k", _always),
                Rule("attn_output", "q5_k", _always),
            ),
            about="3 bits, 5 where they matter",
        ),
        Recipe(
            name="q3_k_m",
            base="q3_k",
            rules=(
                *_values("q5_k", _first(2)),
                *_values("q4_k", _always),
                Rule("ffn_down", "q5_k", _first_part(16)),
                Rule("ffn_down", "q4_k", _always),
                Rule("attn_output", "q4_k", _always),
            ),
            about="3 bits, 4 where they matter, a noticeable loss",
        ),
        Recipe(name="q3_k_s", base="q3_k", about="3 bits, a large loss"),
        Recipe(
            name="q2_k",
            base="q2_k",
            rules=(
                *_values("q4_k", _shared_by_four),
                *_values("q3_k", _always),
                Rule("ffn_down", "q3_k", _always),
                Rule("attn_output", "q3_k", _always),
            ),
            about="2 to 3 bits, a very large loss",
        ),
        Recipe(name="q5_1", base="q5_1", about="5 bits with a minimum, an older format"),
        Recipe(name="q5_0", base="q5_0", about="5 bits, an older format"),
        Recipe(name="q4_1", base="q4_1", about="4 bits with a minimum, an older format"),
        Recipe(name="q4_0", base="q4_0", about="4 bits, an older format, fast everywhere"),
        Recipe(
            name="mxfp4", base="mxfp4", output="q8_0", about="4-bit floats, for models trained so"
        ),
    )
}

_ALIASES = {"q5_k": "q5_k_m", "q4_k": "q4_k_m", "q3_k": "q3_k_m"}

# What stores rows that are not whole blocks of 256; f16 stores any row.
_SMALLER_BLOCK = {
    "q2_k": "q4_0",
    "q3_k": "q4_0",
    "q4_k": "q5_0",
    "q5_k": "q5_1",
    "q6_k": "q8_0",
    "iq4_xs": "iq4_nl",
}

# Matrices that are small and steer the rest: they stay float32.
_KEPT = ("_norm", "ffn_gate_inp", "ssm_conv1d", "shortconv.conv")


def get_recipe(name: str) -> Recipe:
    """Returns the recipe called ``name``, in any case.

    Raises:
        UsageError: there is none.
    """
    key = name.lower()
    try:
        return RECIPES[_ALIASES.get(key, key)]
    except KeyError:
        raise UsageError(
            f"no quantisation is called {name!r}", hint=f"known ones: {', '.join(RECIPES)}"
        ) from None


def choose(recipe: Recipe, tensor: str, shape: Sequence[int], config: ModelConfig) -> QuantType:
    """Says how a tensor is stored.

    Args:
        recipe: the mix.
        tensor: the tensor's GGUF name, such as "blk.3.attn_v.weight".
        shape: its shape; the last axis is the one that a matrix product sums over.
        config: the model it belongs to.
    """
    role = tensor.removesuffix(".weight")
    if len(shape) < 2 or role == tensor or any(part in role for part in _KEPT):
        return get("f32")
    layer = -1
    if role.startswith("blk."):
        _, number, role = role.split(".", 2)
        layer = int(number)
    return _fitting(_wanted(recipe, role, layer, config), shape[-1])


def _wanted(recipe: Recipe, role: str, layer: int, config: ModelConfig) -> QuantType:
    if role == "output" or (role == "token_embd" and config.tied_output):
        return get(recipe.output)
    for rule in recipe.rules:
        if rule.role == role and rule.condition(layer, config):
            return get(rule.type)
    return get(recipe.base)


def _fitting(wanted: QuantType, cols: int) -> QuantType:
    """Returns the type itself or the nearest one whose blocks divide a row of ``cols``."""
    if cols % wanted.block == 0:
        return wanted
    smaller = get(_SMALLER_BLOCK.get(wanted.name, "f16"))
    return smaller if cols % smaller.block == 0 else get("f16")
