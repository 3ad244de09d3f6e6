"""Reads the RoPE settings of a config.json; formulas and defaults are those of transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from edgeinfer.arch.rope import (
    NEEDS_ORIGINAL,
    STILL,
    Rope,
    RopeKind,
    llama3_divisors,
    longrope_attention_factor,
    yarn_attention_factor,
)
from edgeinfer.arch.spec import Architecture
from edgeinfer.errors import CorruptFileError, UnsupportedError

T = TypeVar("T", int, float)


def checked_number(name: str, value: Any, kind: type[T]) -> T:
    """Returns a number of config.json; an integer will do for a float.

    Raises:
        CorruptFileError: it is something else.
    """
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise CorruptFileError(f"{name} is {value!r:.60}, expected {kind.__name__}")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    """The settings of one embedding, with what every type of it needs."""

    values: Mapping[str, Any]
    head_dim: int
    context: int
    truncates: bool  # YaRN, in this family
    dim: int
    base: float
    original_context: int

    def number(self, key: str, default: float | None = None) -> float:
        value = self.values.get(key)
        value = default if value is None else value
        if value is None:
            raise CorruptFileError(f"{_name(key)} is missing")
        return checked_number(_name(key), value, float)

    def numbers(self, key: str) -> tuple[float, ...]:
        values = self.values.get(key)
        if not isinstance(values, list):
            raise CorruptFileError(f"{_name(key)} is missing or not a list")
        return tuple(checked_number(_name(key), value, float) for value in values)

    def factor(self) -> float:
        return self.number("factor", self.context / self.original_context)

    def rope(self, kind: RopeKind = RopeKind.NONE, **changes: Any) -> Rope:
        original = self.original_context if kind in NEEDS_ORIGINAL else 0
        stated = {"dim": self.dim, "base": self.base, "original_context": original}
        return Rope(kind=kind, **{**stated, **changes})


def read_rope(
    values: Mapping[str, Any], arch: Architecture, *, head_dim: int, context: int
) -> Rope:
    """Reads one rotary embedding.

    Args:
        values: "rope_parameters", or "rope_scaling" with "rope_theta" put beside it.
        arch: the family, which may give a type another name.
        head_dim: lanes of a head.
        context: tokens the model was trained for.

    Raises:
        CorruptFileError: a setting is missing or makes no sense.
        UnsupportedError: the type is not known.
    """
    stated = values.get("rope_type", values.get("type", "default"))
    kind = arch.rope_kinds.get(stated, stated)
    if kind not in _KINDS:
        raise UnsupportedError(f"RoPE of type {stated!r}", hint=f"known: {', '.join(_KINDS)}")

    def number(key: str, default: float) -> float:
        value = values.get(key)
        return checked_number(_name(key), default if value is None else value, float)

    settings = _Settings(
        values=values,
        head_dim=head_dim,
        context=context,
        truncates=arch.yarn_truncates,
        dim=int(head_dim * number("partial_rotary_factor", 1.0)),
        base=number("rope_theta", 10000.0),
        original_context=int(number("original_max_position_embeddings", context)),
    )
    if settings.dim < 2 or settings.original_context < 2 or not settings.base > 1:
        raise CorruptFileError(
            f"{_name('rope_theta')} {settings.base} with {settings.dim} rotary lanes and "
            f"an original context of {settings.original_context} makes no sense"
        )
    return _KINDS[kind](settings)


def _name(key: str) -> str:
    return f"config.json: 'rope_parameters.{key}'"


def _plain(s: _Settings) -> Rope:
    return s.rope()


def _linear(s: _Settings) -> Rope:
    factor = s.number("factor")
    return s.rope() if factor == 1 else s.rope(RopeKind.LINEAR, factor=factor)


def _llama3(s: _Settings) -> Rope:
    divisors = llama3_divisors(
        s.base,
        s.dim,
        factor=s.number("factor"),
        low=s.number("low_freq_factor"),
        high=s.number("high_freq_factor"),
        original_context=s.original_context,
    )
    return s.rope(divisors=divisors)


def _proportional(s: _Settings) -> Rope:
    """Frequencies of the whole head, of which only the first pairs turn."""
    factor, pairs = s.number("factor", 1.0), s.head_dim // 2
    turning = int(s.number("partial_rotary_factor", 1.0) * s.head_dim // 2)
    return s.rope(
        dim=s.head_dim, divisors=tuple(factor if i < turning else STILL for i in range(pairs))
    )


def _longrope(s: _Settings) -> Rope:
    default = longrope_attention_factor(s.factor(), s.original_context)
    return s.rope(
        RopeKind.LONGROPE,
        attention_factor=s.number("attention_factor", default),
        long_divisors=s.numbers("long_factor"),
        short_divisors=s.numbers("short_factor"),
    )


def _yarn(s: _Settings) -> Rope:
    truncate = s.values.get("truncate", True)
    if truncate is not s.truncates:
        raise UnsupportedError(f"YaRN with 'truncate' {truncate!r:.60}, which GGUF has no key for")
    factor = s.factor()
    default = yarn_attention_factor(factor)
    mscale, mscale_all = s.number("mscale", 0.0), s.number("mscale_all_dim", 0.0)
    if mscale and mscale_all:
        default = yarn_attention_factor(factor, mscale) / yarn_attention_factor(factor, mscale_all)
    return s.rope(
        RopeKind.YARN,
        factor=factor,
        attention_factor=s.number("attention_factor", default),
        beta_fast=s.number("beta_fast", 32.0) or 32.0,
        beta_slow=s.number("beta_slow", 1.0) or 1.0,
        truncate=s.truncates,
    )


_KINDS: Mapping[str, Callable[[_Settings], Rope]] = {
    "default": _plain,
    "dynamic": _plain,  # it changes nothing up to the trained context
    "linear": _linear,
    "llama3": _llama3,
    "proportional": _proportional,
    "longrope": _longrope,
    "su": _longrope,
    "yarn": _yarn,
}
