"""Assignment: the quant type of every tensor of a model, by a recipe and what overrides it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from edgeinfer.arch.config import ModelConfig
from edgeinfer.errors import UsageError
from edgeinfer.quant import QuantType, get
from edgeinfer.quant.recipes import NEED_IMPORTANCE, Place, Recipe, get_recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """Types that are asked for in place of the recipe's."""

    tensors: tuple[tuple[str, str], ...] = ()  # (regular expression, type); the first that matches
    output: str | None = None  # of the output matrix, and of the embedding where it is both
    embedding: str | None = None  # of the token embedding
    pure: bool = False  # all other matrices get the recipe's base


@dataclass(frozen=True, slots=True)
class Choice:
    """How a tensor is stored, and what would have been if its rows were whole blocks."""

    type: QuantType
    wanted: QuantType


# The kinds of matrices that recipes tell apart, by a part of the name. The first applies.
_KINDS = {
    "attn_qkv.weight": "values",
    "attn_kv_b.weight": "values",
    "attn_v.weight": "values",
    "attn_k.weight": "keys",
    "attn_q.weight": "queries",
    "attn_output.weight": "attn_output",
    "ffn_up": "ffn_up",
    "ffn_gate": "ffn_gate",
    "ffn_down": "ffn_down",
}
_BY_LAYER = {"ffn_up", "ffn_gate", "ffn_down"}

# The token embedding, and that of each layer, which is stored as the former is.
_EMBEDDINGS = ("token_embd.weight", "per_layer_token_embd.weight")

# What stores rows that are not whole blocks of 256; f16 stores any row.
_SMALLER_BLOCK = {
    "q2_k": "q4_0",
    "q3_k": "q4_0",
    "q4_k": "q5_0",
    "q5_k": "q5_1",
    "q6_k": "q8_0",
    "tq1_0": "q4_0",
    "tq2_0": "q4_0",
    **dict.fromkeys(
        ("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "iq4_xs"), "iq4_nl"
    ),
}

# Matrices that are small and steer the rest: they stay float32.
_KEPT = (
    "_norm.weight",
    "ffn_gate_inp.weight",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "position_embd.weight",
    "token_types.weight",
    "attn_rel_b.weight",
)

# Architectures with a model that llama.cpp calls 70B: with so many layers, and fewer KV heads
# than heads where True.
_LARGE = {"llama": (80, True), "qwen2": (80, False), "olmo": (80, False), "deci": (80, False)}


def has_choice(name: str, shape: Sequence[int]) -> bool:
    """Says whether a tensor is a matrix that types are chosen for; all others stay float32."""
    return len(shape) > 1 and name.endswith(".weight") and not any(part in name for part in _KEPT)


def needs_importance(name: str, type_: QuantType, among: Collection[str] = NEED_IMPORTANCE) -> bool:
    """Says whether a matrix may be stored as a type only if it is known which columns count.

    Args:
        name: of the tensor.
        type_: what it is to be stored as.
        among: the types of which that is said, a recipe's ``weighted_types``.
    """
    ends = name in (*_EMBEDDINGS, "output.weight")
    return type_.name in among and not ends


def assign(
    recipe: Recipe,
    shapes: Mapping[str, Sequence[int]],
    config: ModelConfig,
    *,
    overrides: Overrides | None = None,
    weighted: bool = False,
) -> dict[str, Choice]:
    """Says how each tensor is stored.

    Args:
        recipe: the mix.
        shapes: GGUF name, such as "blk.3.attn_v.weight", to shape; the last axis is the one
            that a matrix product sums over.
        config: the model they belong to.
        overrides: types that win over the recipe's.
        weighted: the importance of columns is known; some recipes choose differently then.

    Returns:
        A choice per name, in the order of ``shapes``.

    Raises:
        UsageError: a type is not known, or a pattern is broken or matches no tensor.
    """
    chosen = _Assignment(recipe, shapes, config, overrides or Overrides(), weighted)
    return {name: chosen.choice(name) for name in shapes}


def overridden(
    shapes: Mapping[str, Sequence[int]], config: ModelConfig, overrides: Overrides
) -> dict[str, QuantType]:
    """Says which matrices get the types that are asked for, whatever the recipe.

    The arguments and errors are those of ``assign``.
    """
    chosen = _Assignment(get_recipe("f16"), shapes, config, overrides, weighted=False)
    asked = {name: chosen.overriding(name) for name in chosen.matrices}
    return {name: _fitting(get(type_), shapes[name][-1]) for name, type_ in asked.items() if type_}


class _Assignment:
    def __init__(
        self,
        recipe: Recipe,
        shapes: Mapping[str, Sequence[int]],
        config: ModelConfig,
        overrides: Overrides,
        weighted: bool,
    ) -> None:
        self.recipe, self.shapes, self.overrides = recipe, shapes, overrides
        self.matrices = [name for name, shape in shapes.items() if has_choice(name, shape)]
        self.tied = "output.weight" not in shapes
        self.patterns = self._compiled()
        self.places = self._places(config, weighted)

    def choice(self, name: str) -> Choice:
        if name not in self.places:
            return Choice(get("f32"), get("f32"))
        wanted = get(self.overriding(name) or self._by_recipe(name))
        return Choice(_fitting(wanted, self.shapes[name][-1]), wanted)

    def overriding(self, name: str) -> str | None:
        given = self.overrides
        if name in _EMBEDDINGS and given.embedding and not self._is_named(name):
            return given.embedding
        if name == "output.weight" and given.output:
            return given.output
        for pattern, type_ in self.patterns:
            if pattern.search(name):
                return type_
        if given.pure:
            return self.recipe.base
        if self._is_output(name) and given.output:
            return given.output
        return None

    def _by_recipe(self, name: str) -> str:
        recipe, columns = self.recipe, self.shapes[name][-1]
        if self._is_output(name):
            # Not the fall-back of the output's type: that would be for matrices of few bits.
            return recipe.output if columns % get(recipe.base).block == 0 else "q8_0"
        if name in _EMBEDDINGS:
            return recipe.embedding or recipe.base
        kinds = (_kind(name), "experts" if len(self.shapes[name]) == 3 else "")
        for rule in recipe.rules:
            if rule.kind in kinds and rule.condition(self.places[name]):
                return rule.type
        return recipe.base

    def _is_named(self, name: str) -> bool:
        """The large embedding of layers follows the other unless a pattern says its type."""
        return name != _EMBEDDINGS[0] and any(p.search(name) for p, _ in self.patterns)

    def _is_output(self, name: str) -> bool:
        return name == "output.weight" or (self.tied and name in _EMBEDDINGS)

    def _compiled(self) -> list[tuple[re.Pattern[str], str]]:
        compiled = []
        for text, type_ in self.overrides.tensors:
            try:
                pattern = re.compile(text)
            except re.error as error:
                raise UsageError(
                    f"{text!r} is no pattern of tensor names: {error}",
                    hint=r"a regular expression, such as 'ffn_down' or 'blk\.0\.'",
                ) from None
            if not any(pattern.search(name) for name in self.matrices):
                raise UsageError(
                    f"no matrix of this model has a name that matches {text!r}",
                    hint="`edgeinfer show` lists the names",
                )
            compiled.append((pattern, type_))
        return compiled

    def _places(self, config: ModelConfig, weighted: bool) -> dict[str, Place]:
        experts = max((s[0] for name, s in self.shapes.items() if "_exps." in name), default=0)
        totals = Counter(_kind(name) for name in self.matrices)
        seen: Counter[str] = Counter()
        places = {}
        for name in sorted(self.matrices, key=lambda name: (_layer(name), name)):
            kind = _kind(name)
            by_layer = kind in _BY_LAYER
            places[name] = Place(
                order=_layer(name) if by_layer and experts else seen[kind],
                before=seen[kind],
                count=config.layers if by_layer else totals[kind],
                sharing=config.heads // config.kv_heads if config.kv_heads else 0,
                experts=experts,
                weighted=weighted,
                large=_is_large(config),
            )
            seen[kind] += 1
        return places


def _kind(name: str) -> str:
    return next((kind for part, kind in _KINDS.items() if part in name), "")


def _layer(name: str) -> int:
    number = re.match(r"blk\.(\d+)\.", name)
    return int(number[1]) if number else -1


def _is_large(config: ModelConfig) -> bool:
    layers, grouped = _LARGE.get(config.architecture, (0, False))
    return config.layers == layers and not (grouped and config.heads == config.kv_heads)


def _fitting(wanted: QuantType, columns: int) -> QuantType:
    """Returns the type itself or the nearest one whose blocks divide a row of ``columns``."""
    if columns % wanted.block == 0:
        return wanted
    smaller = get(_SMALLER_BLOCK.get(wanted.name, "f16"))
    return smaller if columns % smaller.block == 0 else get("f16")
