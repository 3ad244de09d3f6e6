"""Recipes: mixes of quant types, by the names that llama.cpp's ``llama-quantize`` gives them.

The choices are llama-quantize's too, so that a size, a speed or a quality that somebody quotes for
``q4_k_m`` is true of our files. A recipe is data: a type for most matrices, one for the output, and
rules for kinds of matrices that deserve more bits, or fewer. ``assignment.py`` applies them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgeinfer.errors import UsageError, known_names


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where in which model a matrix is: what a rule may ask."""

    order: int  # matrices of its kind before it; of a mixture's experts, its layer's number
    before: int  # matrices of its kind before it
    count: int  # matrices of its kind, or layers
    sharing: int  # query heads that share a value head
    experts: int  # 0 for a dense model
    weighted: bool  # the importance of columns is known
    large: bool  # one of the models that llama.cpp calls 70B


Condition = Callable[[Place], bool]


@dataclass(frozen=True, slots=True)
class Rule:
    """Matrices of ``kind`` are stored as ``type`` in the places where ``condition`` holds."""

    kind: str  # see assignment.py
    type: str
    condition: Condition = lambda _place: True


# Types of so few bits that it must be known which columns count; llama-quantize refuses them, too.
NEED_IMPORTANCE = frozenset(("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A mix of quant types. The first rule that applies wins."""

    name: str
    base: str  # the type of matrices without a rule
    output: str = "q6_k"  # the output matrix, and the embedding where it is both
    embedding: str | None = None  # of its own; None is the base
    rules: tuple[Rule, ...] = ()
    weighted_types: frozenset[str] = NEED_IMPORTANCE  # only where it is known which columns count
    about: str

    @property
    def needs_importance(self) -> bool:
        """Whether most matrices get a type that needs it to be known which columns count."""
        return not self.weighted_types.isdisjoint((self.base, *(rule.type for rule in self.rules)))


def _first(count: int) -> Condition:
    return lambda place: place.order < count


def _first_part(divisor: int) -> Condition:
    return lambda place: place.order < place.count // divisor


def _more_bits(place: Place) -> bool:
    """The first and the last eighth of the layers and every third between."""
    i, n = place.order, place.count
    return i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2


def _shared_by_four(place: Place) -> bool:
    """Four query heads or more share a value head: attn_v is small and matters more."""
    return place.sharing >= 4


def _eight_experts(place: Place) -> bool:
    """Mixtral: the attention is a small part of the model."""
    return place.experts == 8


def _unweighted_first_part(place: Place) -> bool:
    return not place.weighted and _first_part(8)(place)


def _weighted_first_part(place: Place) -> bool:
    return place.weighted and _first_part(8)(place)


def _mix(base: str, *rules: Rule, output: str | None = "q5_k") -> tuple[Rule, ...]:
    """Adds what holds for every mix of 3 bits and more: more for few values in large models.

    Args:
        base: the mix's.
        rules: of the mix.
        output: of a Mixtral's attention.
    """

    def in_large(condition: Condition) -> Condition:
        return lambda place: place.large and condition(place)

    values: list[Rule] = []
    for rule in (*(r for r in rules if r.kind == "values"), Rule("values", base)):
        if rule.type in ("q3_k", "q4_k"):
            values.append(Rule("values", "q5_k", in_large(rule.condition)))
        values.append(rule)
    attention = [Rule("attn_output", output or base, _eight_experts)]
    return (
        Rule("values", "q8_0", _eight_experts),
        Rule("keys", "q8_0", _eight_experts),
        *values,
        *attention,
        *(r for r in rules if r.kind != "values"),
    )


def _low(
    name: str,
    base: str | None = None,
    *,
    embedding: str = "q2_k",
    attention: str | None = None,
    about: str,
) -> Recipe:
    """A mix of less than 3 bits.

    Args:
        name: of the mix.
        base: if it is not the type of that name.
        embedding: a type of more bits, also of what matters most in the layers.
        attention: the type of attn_output.
        about: what the mix is.
    """
    base = base or name
    rules = (
        Rule("values", "q4_k", lambda place: place.sharing >= 4 or place.experts >= 4),
        Rule("values", embedding),
        Rule("keys", "q4_k", _eight_experts),
        Rule("ffn_down", embedding, lambda place: place.before < place.count // 8),
        Rule("attn_output", "q5_k", _eight_experts),
        Rule("attn_output", attention or base),
    )
    return Recipe(
        name=name, base=base, output="q5_k", embedding=embedding, rules=rules, about=about
    )


def _ternary(name: str, about: str) -> Recipe:
    rules = _mix(name, output=None)
    return Recipe(name=name, base=name, embedding="q4_k", rules=rules, about=about)


def _middle(place: Place) -> bool:
    return place.count // 8 <= place.order < 7 * place.count // 8


def _plain(name: str, about: str, *, output: str | None = None) -> Recipe:
    return Recipe(name=name, base=name, output=output or name, about=about)


def _iq4(name: str, about: str) -> Recipe:
    rules = (
        Rule("values", "q5_k", _shared_by_four),
        Rule("ffn_down", "q5_k", _unweighted_first_part),
    )
    return Recipe(name=name, base=name, rules=_mix(name, *rules), about=about)


def _older(name: str, with_minimum: str, about: str) -> Recipe:
    # Even with importances the first ffn_down can go astray in a type without a minimum.
    rule = Rule("ffn_down", with_minimum, _weighted_first_part)
    return Recipe(name=name, base=name, rules=_mix(name, rule, output=None), about=about)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        _plain("f32", "32-bit floats, nothing lost"),
        _plain("f16", "16-bit floats"),
        _plain("bf16", "16-bit floats with float32's range"),
        _plain("q8_0", "8 bits, hardly different from f16"),
        Recipe(
            name="q6_k",
            base="q6_k",
            rules=_mix("q6_k", output=None),
            about="6 bits, a very small loss",
        ),
        Recipe(
            name="q5_k_m",
            base="q5_k",
            rules=_mix(
                "q5_k",
                Rule("values", "q6_k", _more_bits),
                Rule("ffn_down", "q6_k", _more_bits),
            ),
            about="5 bits, a small loss",
        ),
        Recipe(name="q5_k_s", base="q5_k", rules=_mix("q5_k"), about="5 bits, all layers alike"),
        Recipe(
            name="q4_k_m",
            base="q4_k",
            rules=_mix(
                "q4_k",
                Rule("values", "q6_k", _more_bits),
                Rule("ffn_down", "q6_k", _more_bits),
            ),
            about="4 bits, the usual compromise",
        ),
        Recipe(
            name="q4_k_s",
            base="q4_k",
            rules=_mix(
                "q4_k",
                Rule("values", "q5_k", _first(4)),
                Rule("ffn_down", "q5_k", _first_part(8)),
            ),
            about="4 bits, smaller than q4_k_m",
        ),
        _iq4("iq4_nl", "4 bits, uneven levels"),
        _iq4("iq4_xs", "a little over 4 bits, uneven levels"),
        Recipe(
            name="q3_k_l",
            base="q3_k",
            rules=_mix(
                "q3_k",
                Rule("values", "q5_k"),
                Rule("ffn_down", "q5_k"),
                Rule("attn_output", "q5_k"),
                output=None,
            ),
            about="3 bits, 5 where they matter",
        ),
        Recipe(
            name="q3_k_m",
            base="q3_k",
            rules=_mix(
                "q3_k",
                Rule("values", "q5_k", _first(2)),
                Rule("values", "q4_k"),
                Rule("ffn_down", "q5_k", _first_part(16)),
                Rule("ffn_down", "q4_k"),
                Rule("attn_output", "q4_k"),
            ),
            about="3 bits, 4 where they matter, a noticeable loss",
        ),
        Recipe(name="q3_k_s", base="q3_k", rules=_mix("q3_k"), about="3 bits, a large loss"),
        Recipe(
            name="iq3_m",
            base="iq3_s",
            rules=_mix(
                "iq3_s",
                Rule("values", "q4_k"),
                Rule("ffn_down", "q4_k", _first_part(8)),
                Rule("ffn_down", "q4_k", lambda place: _eight_experts(place) and _more_bits(place)),
                Rule("attn_output", "q4_k"),
            ),
            about="3.5 bits by points of a grid, 4 where they matter",
        ),
        Recipe(
            name="iq3_s",
            base="iq3_s",
            rules=_mix("iq3_s", Rule("values", "q4_k", _shared_by_four)),
            about="3.4 bits by points of a grid",
        ),
        Recipe(
            name="iq3_xs",
            base="iq3_s",
            rules=_mix(
                "iq3_s",
                Rule("values", "q4_k", _shared_by_four),
                Rule("keys", "iq3_xxs"),
                Rule("queries", "iq3_xxs"),
                Rule("ffn_gate", "iq3_xxs", _middle),
                Rule("ffn_up", "iq3_xxs", _middle),
            ),
            about="3.3 bits by points of a grid; with importances",
        ),
        Recipe(
            name="iq3_xxs",
            base="iq3_xxs",
            output="q5_k",
            embedding="iq3_s",
            rules=_mix(
                "iq3_xxs",
                Rule("values", "q4_k", _shared_by_four),
                Rule("values", "iq3_s", lambda place: not place.weighted),
                Rule("keys", "iq2_s"),
                Rule("queries", "iq2_s"),
                Rule("ffn_down", "q4_k", _unweighted_first_part),
                Rule("ffn_down", "q3_k", lambda place: not place.weighted),
                Rule("attn_output", "iq3_s"),
            ),
            about="3.1 bits by points of a grid; with importances",
        ),
        Recipe(
            name="q2_k",
            base="q2_k",
            rules=_mix(
                "q2_k",
                Rule("values", "q4_k", _shared_by_four),
                Rule("values", "q3_k"),
                Rule("ffn_down", "q3_k"),
                Rule("attn_output", "q3_k"),
            ),
            about="2 to 3 bits, a very large loss",
        ),
        Recipe(
            name="q2_k_s",
            base="q2_k",
            rules=_mix(
                "q2_k",
                Rule("values", "q4_k", _shared_by_four),
                Rule("ffn_down", "q4_k", _first_part(8)),
                output=None,
            ),
            weighted_types=NEED_IMPORTANCE | {"q2_k"},  # of all mixes with q2_k only this one
            about="2 to 3 bits, smaller than q2_k; with importances",
        ),
        _low(
            "iq2_m",
            "iq2_s",
            embedding="iq3_s",
            attention="iq3_s",
            about="2.7 bits by points of a grid; with importances",
        ),
        _low(
            "iq2_s",
            "iq2_xs",
            embedding="iq3_s",
            attention="iq3_s",
            about="2.5 bits by points of a grid; with importances",
        ),
        _low("iq2_xs", about="2.4 bits by points of a grid; with importances"),
        _low("iq2_xxs", about="2.2 bits by points of a grid; with importances"),
        _low("iq1_m", attention="iq2_xxs", about="1.9 bits; for very large models; importances"),
        _low("iq1_s", attention="iq2_xxs", about="1.7 bits; for very large models; importances"),
        _ternary("tq2_0", "2.1 bits, for models trained with weights -1, 0 and 1"),
        _ternary("tq1_0", "1.7 bits, for models trained with weights -1, 0 and 1"),
        Recipe(
            name="q5_1",
            base="q5_1",
            rules=_mix("q5_1", output=None),
            about="5 bits with a minimum, an older format",
        ),
        _older("q5_0", "q5_1", "5 bits, an older format"),
        Recipe(
            name="q4_1",
            base="q4_1",
            rules=_mix("q4_1", output=None),
            about="4 bits with a minimum, an older format",
        ),
        _older("q4_0", "q4_1", "4 bits, an older format, fast everywhere"),
        _plain("mxfp4", "4-bit floats, for models trained so", output="q8_0"),
        Recipe(
            name="mxfp4_moe",
            base="q8_0",
            output="q8_0",
            rules=(Rule("experts", "mxfp4"),),
            about="4-bit floats for experts, 8 bits for the rest",
        ),
    )
}

_ALIASES = {"q5_k": "q5_k_m", "q4_k": "q4_k_m", "q3_k": "q3_k_m"}


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
            f"no quantisation is called {name!r}", hint=known_names(name, RECIPES)
        ) from None
