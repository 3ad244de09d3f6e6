"""Reads a model's numbers from GGUF metadata.

Key names and defaults are those of llama.cpp
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and its loaders).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeinfer.arch.config import Mixer, Norm, Pooling, Router
from edgeinfer.arch.hyperparameters import (
    Hyperparameters,
    check_size,
    default_attention_scale,
    mixers_of,
    period_pattern,
    varied,
)
from edgeinfer.arch.rope import NEEDS_ORIGINAL, Rope, RopeKind, yarn_attention_factor
from edgeinfer.arch.spec import Architecture
from edgeinfer.errors import CorruptFileError, UnsupportedError

# Our field -> the key after "{arch}.".
KEYS: Mapping[str, str] = {
    "context": "context_length",
    "layers": "block_count",
    "width": "embedding_length",
    "heads": "attention.head_count",
    "kv_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "value_dim": "attention.value_length",
    "ff_width": "feed_forward_length",
    "norm_eps": "attention.layer_norm_rms_epsilon",
    "window": "attention.sliding_window",
    "window_pattern": "attention.sliding_window_pattern",
    "attention_scale": "attention.scale",
    "attention_softcap": "attn_logit_softcapping",
    "output_softcap": "final_logit_softcapping",
    "embedding_scale": "embedding_scale",
    "residual_scale": "residual_scale",
    "output_scale": "logit_scale",
    "experts": "expert_count",
    "experts_used": "expert_used_count",
    "expert_ff_width": "expert_feed_forward_length",
    "expert_weights_scale": "expert_weights_scale",
    "expert_gating": "expert_gating_func",
    "dense_layers": "leading_dense_block_count",
    "pooling": "pooling_type",
    "conv_taps": "shortconv.l_cache",
    "delta_heads": "ssm.time_step_rank",
    "delta_key_heads": "ssm.group_count",
    "delta_dim": "ssm.state_size",
    "delta_values": "ssm.inner_size",
    "recurrent": "attention.recurrent_layers",
    "attention_period": "full_attention_interval",
    "shared_ff_width": "expert_shared_feed_forward_length",
    "layers_ahead": "nextn_predict_layers",
    "local_head_dim": "attention.key_length_swa",
    "local_value_dim": "attention.value_length_swa",
    "shared_kv_layers": "attention.shared_kv_layers",
    "per_layer_width": "embedding_length_per_layer_input",
    "streams": "altup.num_inputs",
    "computed_stream": "altup.active_idx",
    "cutoffs": "activation_sparsity_scale",
    "rope.sections": "rope.dimension_sections",
    "causal": "attention.causal",
    "rope.dim": "rope.dimension_count",
    "rope.local_dim": "rope.dimension_count_swa",
    "rope.base": "rope.freq_base",
    "rope.local_base": "rope.freq_base_swa",
    "rope.kind": "rope.scaling.type",
    "rope.factor": "rope.scaling.factor",
    "rope.original_context": "rope.scaling.original_context_length",
    "rope.attention_factor": "rope.scaling.attn_factor",
    "rope.log_multiplier": "rope.scaling.yarn_log_multiplier",
    "rope.beta_fast": "rope.scaling.yarn_beta_fast",
    "rope.beta_slow": "rope.scaling.yarn_beta_slow",
    "rope.finetuned": "rope.scaling.finetuned",
}


def keys_of(arch: Architecture) -> Mapping[str, str]:
    """Returns ``KEYS`` as a family has them."""
    if arch.recurrent is Mixer.DELTA_NET:
        return {**KEYS, "conv_taps": "ssm.conv_kernel"}
    if arch.norm is Norm.LAYER:
        return {**KEYS, "norm_eps": "attention.layer_norm_epsilon"}
    return KEYS


# llama.cpp's numbers of what embeddings are made of; 0 is "each token its own".
POOLINGS: Mapping[int, Pooling | None] = {
    0: None,
    1: Pooling.MEAN,
    2: Pooling.FIRST,
    3: Pooling.LAST,
}

# llama.cpp's numbers of what makes weights of the scores of experts.
ROUTERS: Mapping[Router, int] = {Router.SOFTMAX: 1, Router.SIGMOID: 2}

# Tensors that carry RoPE divisors: our field -> tensor.
ROPE_TENSORS: Mapping[str, str] = {
    "rope.divisors": "rope_freqs.weight",
    "rope.long_divisors": "rope_factors_long.weight",
    "rope.short_divisors": "rope_factors_short.weight",
}

_LAUREL = "blk.0.laurel_l.weight"


class _TensorInfo(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...


class GgufSource(Protocol):
    """What is read of a GGUF file here; ``edgeinfer.formats.gguf.GGUFFile`` has it."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Values by key."""

    @property
    def tensors(self) -> Mapping[str, _TensorInfo]:
        """Tensors by name; shapes are (rows, columns)."""

    def data(self, name: str) -> NDArray[np.uint8]:
        """Returns the bytes of a tensor."""


T = TypeVar("T", int, float, str, bool)


def read_gguf(gguf: GgufSource, arch: Architecture) -> Hyperparameters:
    """Reads the numbers of a GGUF file.

    Raises:
        CorruptFileError: a key is missing, has the wrong type or makes no sense.
        UnsupportedError: the file uses something the graph does not have.
    """
    keys = _Keys(gguf.metadata, arch)
    layers = keys.require("layers", int)
    if arch.predicts_ahead:
        layers -= keys.optional("layers_ahead", int, 0)
    check_size("layers", layers, keys.name)
    width = check_size("width", keys.require("width", int), keys.name)
    heads = check_size("heads", keys.per_layer("heads", None), keys.name)
    head_dim = check_size("head_dim", keys.optional("head_dim", int, width // heads), keys.name)
    _refuse_other_graphs(keys, arch, head_dim)
    experts = _experts(keys, arch)
    window = keys.optional("window", int, arch.default_window)
    local_head_dim = keys.optional("local_head_dim", int, head_dim) if arch.windows_differ else 0
    check_size("head_dim", local_head_dim or head_dim, keys.name)
    rope, local = _ropes(gguf, keys, arch, head_dim, local_head_dim or head_dim)
    widths = _widths(keys, arch, layers)
    dense_layers = keys.optional("dense_layers", int, 0) if arch.dense_layers else 0
    has_dense = experts > 0 and (arch.dense_beside_experts or dense_layers > 0)
    kv_heads = _layer_kv_heads(keys, arch, layers)
    delta = _delta(keys, arch)
    numbers = Hyperparameters(
        name=str(gguf.metadata.get("general.name", "")),
        vocab_size=_vocab_size(gguf),
        context=keys.require("context", int),
        token_types=_token_types(gguf, arch),
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=max(kv_heads, default=0) or _kv_heads(keys, arch, heads),
        head_dim=head_dim,
        ff_width=keys.optional("expert_ff_width", int, max(widths)) if experts else max(widths),
        dense_ff_width=max(widths) if has_dense else 0,
        dense_layers=dense_layers,
        local_head_dim=0 if local_head_dim == head_dim else local_head_dim,
        layer_kv_heads=varied(kv_heads),
        layer_ff_width=varied(widths),
        shared_kv_layers=keys.optional("shared_kv_layers", int, 0) if arch.shares_kv else 0,
        key_is_value=_key_is_value(gguf, layers) if arch.keys_as_values else (),
        per_layer_width=keys.optional("per_layer_width", int, 0) if arch.per_layer_inputs else 0,
        streams=keys.require("streams", int) if arch.several_streams else 1,
        laurel_rank=_laurel_rank(gguf, keys) if arch.laurel else 0,
        cutoffs=_cutoffs(keys, layers) if arch.sparse_gates else (),
        experts=experts,
        experts_used=keys.require("experts_used", int) if experts else 0,
        # 0 has always meant "none".
        expert_weights_scale=keys.optional("expert_weights_scale", float, 1.0) or 1.0,
        norm_eps=keys.require("norm_eps", float),
        rope=rope,
        local_rope=local if window else None,
        window=window,
        windowed=_windowed(keys, arch, layers) if window else (False,) * layers,
        rotated=period_pattern(arch.no_rope_period, layers),
        mixers=_mixers(keys, arch, layers),
        conv_taps=keys.require("conv_taps", int) if arch.recurrent else 0,
        delta_heads=delta.get("delta_heads", 0),
        delta_key_heads=delta.get("delta_key_heads", 0),
        delta_dim=delta.get("delta_dim", 0),
        attention_scale=keys.optional(
            "attention_scale",
            float,
            default_attention_scale(
                arch, layers=layers, width=width, heads=heads, head_dim=head_dim
            ),
        ),
        attention_softcap=keys.optional("attention_softcap", float, arch.attention_softcap),
        output_softcap=keys.optional("output_softcap", float, arch.output_softcap),
        embedding_scale=keys.optional(
            "embedding_scale", float, math.sqrt(width) if arch.scale_embedding else 1.0
        ),
        residual_scale=keys.optional("residual_scale", float, 1.0),
        output_scale=1.0 / (keys.optional("output_scale", float, 1.0) or math.nan),
        tied_output=arch.causal and "output.weight" not in gguf.tensors,
        pooling=_pooling(keys),
    )
    numbers.check(keys.name)
    return numbers


class _Keys:
    """The keys of one architecture, with checked types."""

    def __init__(self, metadata: Mapping[str, Any], arch: Architecture) -> None:
        self.metadata = metadata
        self._arch = arch.name
        self._keys = keys_of(arch)

    def name(self, field: str) -> str:
        if field in ROPE_TENSORS:
            return f"tensor {ROPE_TENSORS[field]!r}"
        if field == "vocab_size":
            return "rows of tensor 'token_embd.weight'"
        if field == "token_types":
            return "rows of tensor 'token_types.weight'"
        if field == "laurel_rank":
            return f"rows of tensor {_LAUREL!r}"
        return f"key '{self._arch}.{self._keys[field]}'"

    def get(self, field: str) -> Any:
        return self.metadata.get(f"{self._arch}.{self._keys[field]}")

    def require(self, field: str, kind: type[T]) -> T:
        value = self.get(field)
        if value is None:
            raise CorruptFileError(f"{self.name(field)} is missing")
        return self._checked(field, value, kind)

    def optional(self, field: str, kind: type[T], default: T) -> T:
        value = self.get(field)
        return default if value is None else self._checked(field, value, kind)

    def per_layer(self, field: str, default: int | None) -> int:
        """Reads a number that may be an array with one value a layer, all the same."""
        value = self.get(field)
        if isinstance(value, (np.ndarray, list)):
            distinct = {int(v) for v in value if isinstance(v, (int, np.integer))}
            if len(distinct) != 1:
                raise UnsupportedError(f"{self.name(field)} differs between layers")
            return distinct.pop()
        if value is None and default is not None:
            return default
        return self.require(field, int)

    def numbers(self, field: str) -> tuple[int, ...]:
        """Reads a number, or an array of them."""
        value = self.get(field)
        if isinstance(value, (np.ndarray, list)):
            if not all(isinstance(v, (int, np.integer)) for v in value):
                raise CorruptFileError(f"{self.name(field)} is {value!r:.60}, expected integers")
            return tuple(int(v) for v in value)
        return (self.require(field, int),)

    def by_layer(self, field: str, layers: int) -> tuple[int, ...]:
        """Reads each layer's number, or one that is that of all."""
        found = self.numbers(field)
        if len(found) not in (1, layers):
            raise CorruptFileError(f"{self.name(field)} has {len(found)} values, of {layers}")
        return found * (layers // len(found))

    def _checked(self, field: str, value: Any, kind: type[T]) -> T:
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise CorruptFileError(f"{self.name(field)} is {value!r:.60}, expected {kind.__name__}")
        return value


def _refuse_other_graphs(keys: _Keys, arch: Architecture, head_dim: int) -> None:
    """Refuses what would run, but wrongly."""
    if keys.optional("value_dim", int, head_dim) != head_dim:
        raise UnsupportedError(f"{keys.name('value_dim')} differs from the {head_dim} of keys")
    local = keys.optional("local_head_dim", int, head_dim)
    if keys.optional("local_value_dim", int, local) != local:
        raise UnsupportedError(f"{keys.name('local_value_dim')} differs from the {local} of keys")
    expert = keys.optional("expert_ff_width", int, 0)
    if arch.has_shared_expert and keys.optional("shared_ff_width", int, expert) != expert:
        raise UnsupportedError(
            f"{keys.name('shared_ff_width')} differs from the {expert} of others"
        )
    if keys.optional("causal", bool, arch.causal) is not arch.causal:
        raise UnsupportedError(f"{keys.name('causal')} is {not arch.causal} in {arch.name}")
    if keys.optional("computed_stream", int, 0) != 0:
        raise UnsupportedError(f"{keys.name('computed_stream')} is another stream than the first")
    # Where softmax is usual, llama.cpp does not look at the key.
    usual = ROUTERS[arch.router]
    if arch.router is not Router.SOFTMAX and keys.optional("expert_gating", int, usual) != usual:
        raise UnsupportedError(f"{keys.name('expert_gating')} is not {usual} in {arch.name}")
    if arch.rope_switch and not keys.optional("rope.finetuned", bool, True):
        raise UnsupportedError(f"{arch.name} without rotary embeddings")


def _experts(keys: _Keys, arch: Architecture) -> int:
    """Returns how many experts there are; 0 for none."""
    if arch.only_experts:
        return check_size("experts", keys.require("experts", int), keys.name)
    experts = keys.optional("experts", int, 0)
    if experts and not arch.experts:
        raise UnsupportedError(f"{arch.name} with experts ({keys.name('experts')})")
    return experts


def _kv_heads(keys: _Keys, arch: Architecture, heads: int) -> int:
    if not arch.kv_heads_tell_mixers:
        return keys.per_layer("kv_heads", heads)
    counts = set(keys.numbers("kv_heads")) - {0}
    if len(counts) != 1:
        raise UnsupportedError(f"{keys.name('kv_heads')} differs between layers with attention")
    return counts.pop()


def _layer_kv_heads(keys: _Keys, arch: Architecture, layers: int) -> tuple[int, ...]:
    """Returns each layer's number of KV heads, where they may differ."""
    return keys.by_layer("kv_heads", layers) if arch.windows_differ else ()


def _widths(keys: _Keys, arch: Architecture, layers: int) -> tuple[int, ...]:
    """Returns the widths of feed-forward blocks: each layer's, or one."""
    if arch.widths_differ:
        return keys.by_layer("ff_width", layers)
    return (keys.per_layer("ff_width", None),)


def _key_is_value(gguf: GgufSource, layers: int) -> tuple[bool, ...]:
    """Layers without a matrix of values, nor one that holds all; nothing if there are none.

    Those that read another's keys have neither, and it makes no difference what is said of them.
    """
    found = tuple(
        f"blk.{i}.attn_k.weight" in gguf.tensors and f"blk.{i}.attn_v.weight" not in gguf.tensors
        for i in range(layers)
    )
    return found if any(found) else ()


def _laurel_rank(gguf: GgufSource, keys: _Keys) -> int:
    """No key says it."""
    if _LAUREL not in gguf.tensors:
        raise CorruptFileError(f"tensor {_LAUREL!r} is missing")
    return check_size("laurel_rank", int(gguf.tensors[_LAUREL].shape[0]), keys.name)


def _cutoffs(keys: _Keys, layers: int) -> tuple[float, ...]:
    """Returns where each layer's gates are cut off; nothing if none are."""
    found = keys.get("cutoffs")
    is_list = isinstance(found, (np.ndarray, list)) and len(found) == layers
    if not is_list or not all(isinstance(cutoff, (float, np.floating)) for cutoff in found):
        raise CorruptFileError(f"{keys.name('cutoffs')} is no list of {layers} floats")
    cutoffs = tuple(float(cutoff) for cutoff in found)
    return cutoffs if any(cutoff != -math.inf for cutoff in cutoffs) else ()


def _delta(keys: _Keys, arch: Architecture) -> dict[str, int]:
    if arch.recurrent is not Mixer.DELTA_NET:
        return {}
    fields = ("delta_heads", "delta_key_heads", "delta_dim")
    numbers = {field: keys.require(field, int) for field in fields}
    values = numbers["delta_heads"] * numbers["delta_dim"]
    if keys.optional("delta_values", int, values) != values:
        raise UnsupportedError(f"{arch.name} with keys and values of different lengths")
    return numbers


def _mixers(keys: _Keys, arch: Architecture, layers: int) -> tuple[Mixer, ...]:
    recurrent = arch.recurrent
    if recurrent is None:
        return ()
    if not arch.kv_heads_tell_mixers:
        flags = keys.get("recurrent")
        if isinstance(flags, (np.ndarray, list)):
            if len(flags) < layers:
                raise CorruptFileError(f"{keys.name('recurrent')} has {len(flags)} values")
            return mixers_of(recurrent, (not flag for flag in flags[:layers]))
        period = keys.optional("attention_period", int, arch.attention_period)
        return mixers_of(recurrent, (not other for other in period_pattern(period, layers)))
    counts = keys.numbers("kv_heads")
    if len(counts) not in (1, layers):
        raise CorruptFileError(
            f"{keys.name('kv_heads')} has {len(counts)} values for {layers} layers"
        )
    return mixers_of(recurrent, (count > 0 for count in counts * (layers // len(counts))))


def _pooling(keys: _Keys) -> Pooling | None:
    number = keys.optional("pooling", int, 0)
    if number not in POOLINGS:
        raise UnsupportedError(f"{keys.name('pooling')} is {number}: not an embedding")
    return POOLINGS[number]


def _vocab_size(gguf: GgufSource) -> int:
    if "token_embd.weight" not in gguf.tensors:
        raise CorruptFileError("tensor 'token_embd.weight' is missing")
    return int(gguf.tensors["token_embd.weight"].shape[0])


def _token_types(gguf: GgufSource, arch: Architecture) -> int:
    found = gguf.tensors.get("token_types.weight") if arch.token_types else None
    return int(found.shape[0]) if found is not None else 0


def _windowed(keys: _Keys, arch: Architecture, layers: int) -> tuple[bool, ...]:
    pattern = keys.get("window_pattern")
    if pattern is None:
        return period_pattern(arch.window_period, layers, first=arch.window_first)
    if isinstance(pattern, (np.ndarray, list)):
        if len(pattern) != layers:
            raise CorruptFileError(
                f"{keys.name('window_pattern')} has {len(pattern)} values for {layers} layers"
            )
        return tuple(bool(windowed) for windowed in pattern)
    return period_pattern(keys.require("window_pattern", int), layers, first=arch.window_first)


def _ropes(
    gguf: GgufSource, keys: _Keys, arch: Architecture, head_dim: int, local_head_dim: int
) -> tuple[Rope, Rope | None]:
    dim = keys.optional("rope.dim", int, head_dim)
    base = keys.optional("rope.base", float, 10000.0)
    factor = keys.optional("rope.factor", float, 1.0) or 1.0  # 0 has always meant "none"
    kind = _kind(keys, factor)
    attention_factor = keys.optional("rope.attention_factor", float, 1.0)
    if kind is RopeKind.YARN and factor > 0:
        log_multiplier = keys.optional("rope.log_multiplier", float, 0.0)
        attention_factor *= yarn_attention_factor(factor)
        if log_multiplier:
            attention_factor /= yarn_attention_factor(factor, log_multiplier)
    original = keys.optional("rope.original_context", int, keys.require("context", int))
    divisors = {
        field.removeprefix("rope."): _floats(gguf, tensor) for field, tensor in ROPE_TENSORS.items()
    }
    rope = Rope(
        dim=dim,
        base=base,
        kind=kind,
        factor=factor if kind in (RopeKind.LINEAR, RopeKind.YARN) else 1.0,
        original_context=original if kind in NEEDS_ORIGINAL else 0,
        attention_factor=attention_factor,
        beta_fast=keys.optional("rope.beta_fast", float, 32.0),
        beta_slow=keys.optional("rope.beta_slow", float, 1.0),
        truncate=arch.yarn_truncates or kind is not RopeKind.YARN,
        **divisors,
    )
    if arch.local_rope_base is None:
        return rope, None
    if arch.windows_differ:
        dim = keys.optional("rope.local_dim", int, local_head_dim)
    return rope, Rope(dim=dim, base=keys.optional("rope.local_base", float, arch.local_rope_base))


def _kind(keys: _Keys, factor: float) -> RopeKind:
    stated = keys.optional("rope.kind", str, "linear")
    if stated not in {kind.value for kind in RopeKind}:
        raise UnsupportedError(
            f"{keys.name('rope.kind')} is {stated!r}",
            hint=f"known: {', '.join(kind.value for kind in RopeKind)}",
        )
    kind = RopeKind(stated)
    if kind is RopeKind.LINEAR and factor == 1:
        return RopeKind.NONE
    return kind


def _floats(gguf: GgufSource, tensor: str) -> tuple[float, ...]:
    if tensor not in gguf.tensors:
        return ()
    shape = gguf.tensors[tensor].shape
    values = np.frombuffer(gguf.data(tensor), dtype="<f4")
    if len(shape) != 1 or len(values) != shape[0]:
        raise CorruptFileError(f"tensor {tensor!r} has shape {shape}, expected a row of f32")
    return tuple(float(v) for v in values)
