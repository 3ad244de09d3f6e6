"""Writes a model's numbers as GGUF metadata, as llama.cpp's converter would."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgeinfer.arch.config import Mixer, Router
from edgeinfer.arch.from_gguf import POOLINGS, ROPE_TENSORS, ROUTERS, keys_of
from edgeinfer.arch.hyperparameters import (
    Hyperparameters,
    default_attention_scale,
    period_pattern,
)
from edgeinfer.arch.rope import NEEDS_ORIGINAL, Rope, RopeKind, yarn_attention_factor
from edgeinfer.arch.spec import Architecture
from edgeinfer.errors import UnsupportedError

TOKEN_TYPE_COUNT = "tokenizer.ggml.token_type_count"

# The value of a key; in the file an int is a u32, a float an f32, a tuple an array.
GgufValue = int | float | bool | str | tuple[bool, ...] | tuple[int, ...] | tuple[float, ...]


def metadata(numbers: Hyperparameters, arch: Architecture) -> dict[str, GgufValue]:
    """Returns the keys of a model: "general.architecture" and all that begin with its value.

    Raises:
        UnsupportedError: GGUF has no key for something; what and why is in the message.
    """
    values: dict[str, GgufValue] = {
        "context": numbers.context,
        "layers": numbers.layers,
        "width": numbers.width,
        "heads": numbers.heads,
        "kv_heads": _kv_heads(numbers, arch),
        "head_dim": numbers.head_dim,
        "value_dim": numbers.head_dim,
        "ff_width": numbers.dense_ff_width or numbers.ff_width,
        "norm_eps": numbers.norm_eps,
        **_by_layer(numbers, arch),
        **_experts(numbers, arch),
        **_window(numbers, arch),
        **_scales(numbers, arch),
        **_rope(numbers, arch),
    }
    if arch.recurrent:
        values |= _recurrent(numbers, arch)
    if arch.rope_sections:
        values["rope.sections"] = arch.rope_sections
    if numbers.pooling is not None:
        values["pooling"] = next(n for n, kind in POOLINGS.items() if kind is numbers.pooling)
    if numbers.rotated != period_pattern(arch.no_rope_period, numbers.layers):
        raise UnsupportedError(
            f"{arch.name} with other layers than each {arch.no_rope_period}th "
            "without rotary embedding: GGUF has no key for it"
        )
    if not arch.causal:
        values["causal"] = False
    keys = keys_of(arch)
    types = {TOKEN_TYPE_COUNT: numbers.token_types} if arch.token_types else {}
    return {
        "general.architecture": arch.name,
        f"{arch.name}.vocab_size": numbers.vocab_size,
        **types,
        **{f"{arch.name}.{keys[field]}": value for field, value in values.items()},
    }


def rope_tensors(numbers: Hyperparameters) -> dict[str, NDArray[np.float32]]:
    """Returns the tensors that hold RoPE divisors, by name; most models have none."""
    divisors = {
        tensor: getattr(numbers.rope, field.removeprefix("rope."))
        for field, tensor in ROPE_TENSORS.items()
    }
    return {name: np.array(values, np.float32) for name, values in divisors.items() if values}


def _kv_heads(numbers: Hyperparameters, arch: Architecture) -> int | tuple[int, ...]:
    if not (arch.kv_heads_tell_mixers and numbers.mixers):
        return numbers.layer_kv_heads or numbers.kv_heads
    return tuple(numbers.kv_heads if mixer is Mixer.ATTENTION else 0 for mixer in numbers.mixers)


def _by_layer(numbers: Hyperparameters, arch: Architecture) -> Mapping[str, GgufValue]:
    """What layers have of their own, or in common, where families have such."""
    written: dict[str, GgufValue] = {}
    if arch.windows_differ:
        local = numbers.local_head_dim or numbers.head_dim
        written |= {"local_head_dim": local, "local_value_dim": local}
    if arch.widths_differ:
        widths = numbers.layer_ff_width or numbers.dense_ff_width or numbers.ff_width
        written["ff_width"] = widths
    if arch.shares_kv:
        written["shared_kv_layers"] = numbers.shared_kv_layers
    if arch.per_layer_inputs:
        written["per_layer_width"] = numbers.per_layer_width
    if arch.several_streams:
        written |= {"streams": numbers.streams, "computed_stream": 0}
    if arch.sparse_gates:
        written["cutoffs"] = numbers.cutoffs or (-math.inf,) * numbers.layers
    return written


def _recurrent(numbers: Hyperparameters, arch: Architecture) -> Mapping[str, GgufValue]:
    written: dict[str, GgufValue] = {"conv_taps": numbers.conv_taps}
    if arch.recurrent is Mixer.DELTA_NET:
        written |= {
            "delta_heads": numbers.delta_heads,
            "delta_key_heads": numbers.delta_key_heads,
            "delta_dim": numbers.delta_dim,
            "delta_values": numbers.delta_heads * numbers.delta_dim,
            "attention_period": arch.attention_period,
        }
        recurrent = tuple(mixer is not Mixer.ATTENTION for mixer in numbers.mixers)
        if recurrent != period_pattern(arch.attention_period, numbers.layers):
            written["recurrent"] = recurrent or (False,) * numbers.layers
    return written


def _experts(numbers: Hyperparameters, arch: Architecture) -> Mapping[str, GgufValue]:
    if not numbers.experts:
        return {}
    return {
        "experts": numbers.experts,
        "experts_used": numbers.experts_used,
        "expert_ff_width": numbers.ff_width,
        **({"dense_layers": numbers.dense_layers} if arch.dense_layers else {}),
        **({"expert_gating": ROUTERS[arch.router]} if arch.router is not Router.SOFTMAX else {}),
        **(
            {"expert_weights_scale": numbers.expert_weights_scale}
            if numbers.expert_weights_scale != 1
            else {}
        ),
        **({"shared_ff_width": numbers.ff_width} if arch.has_shared_expert else {}),
    }


def _window(numbers: Hyperparameters, arch: Architecture) -> Mapping[str, GgufValue]:
    if not numbers.window:
        # Written as 0 where a missing key would mean the family's usual window.
        return {"window": 0} if arch.default_window else {}
    written: dict[str, GgufValue] = {"window": numbers.window}
    if numbers.windowed != period_pattern(
        arch.window_period, numbers.layers, first=arch.window_first
    ):
        written["window_pattern"] = numbers.windowed
    return written


def _scales(numbers: Hyperparameters, arch: Architecture) -> Mapping[str, GgufValue]:
    """The multipliers that differ from what a reader takes where there is no key."""
    usual = default_attention_scale(
        arch,
        layers=numbers.layers,
        width=numbers.width,
        heads=numbers.heads,
        head_dim=numbers.head_dim,
    )
    embedding = numbers.width**0.5 if arch.scale_embedding else 1.0
    written: dict[str, GgufValue] = {}
    if numbers.attention_scale != usual:
        written["attention_scale"] = numbers.attention_scale
    if numbers.embedding_scale != embedding:
        written["embedding_scale"] = numbers.embedding_scale
    if numbers.residual_scale != 1:
        written["residual_scale"] = numbers.residual_scale
    if numbers.output_scale != 1 or arch.requires_logit_scale:
        written["output_scale"] = 1.0 / numbers.output_scale
    if numbers.attention_softcap or arch.attention_softcap:
        written["attention_softcap"] = numbers.attention_softcap
    if numbers.output_softcap or arch.output_softcap:
        written["output_softcap"] = numbers.output_softcap
    return written


def _rope(numbers: Hyperparameters, arch: Architecture) -> Mapping[str, GgufValue]:
    if not any(numbers.rotated):
        return {}
    rope = numbers.rope
    written: dict[str, GgufValue] = {"rope.dim": rope.dim, "rope.base": rope.base}
    if numbers.local_rope is not None:
        dim = numbers.local_rope.dim if arch.windows_differ else rope.dim
        plain = Rope(dim=dim, base=numbers.local_rope.base)
        if numbers.local_rope != plain:
            raise UnsupportedError("stretched RoPE in windowed layers: GGUF has no key for it")
        written["rope.local_base"] = plain.base
        if arch.windows_differ:
            written["rope.local_dim"] = dim
    if rope.kind is RopeKind.NONE:
        return written
    written["rope.kind"] = rope.kind.value
    attention_factor = rope.attention_factor
    if rope.kind is not RopeKind.LONGROPE:
        written["rope.factor"] = rope.factor
    if rope.kind in NEEDS_ORIGINAL:
        written["rope.original_context"] = rope.original_context
    if rope.kind is RopeKind.YARN:
        attention_factor /= yarn_attention_factor(rope.factor)  # which readers multiply by
        written["rope.beta_fast"] = rope.beta_fast
        written["rope.beta_slow"] = rope.beta_slow
    if attention_factor != 1:
        written["rope.attention_factor"] = attention_factor
    return written
