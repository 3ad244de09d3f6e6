"""Reads a model's numbers from the config.json of a Hugging Face checkpoint.

Keys and defaults are those of transformers; both spellings of the RoPE settings are read:
``rope_parameters`` (version 5, per layer type for Gemma 3) and ``rope_theta`` with
``rope_scaling``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any, TypeVar

from edgeinfer.arch.config import Activation, Mixer
from edgeinfer.arch.hyperparameters import (
    Hyperparameters,
    check_size,
    mixers_of,
    period_pattern,
    varied,
)
from edgeinfer.arch.rope import Rope
from edgeinfer.arch.rope_from_hf import checked_number, read_rope
from edgeinfer.arch.spec import Architecture
from edgeinfer.errors import CorruptFileError, UnsupportedError

# Our field -> the key of config.json.
KEYS: Mapping[str, str] = {
    "vocab_size": "vocab_size",
    "context": "max_position_embeddings",
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "ff_width": "intermediate_size",
    "token_types": "type_vocab_size",
    "experts": "num_experts",
    "experts_used": "num_experts_per_tok",
    "norm_eps": "rms_norm_eps",
    "window": "sliding_window",
    "attention_softcap": "attn_logit_softcapping",
    "output_softcap": "final_logit_softcapping",
    "attention_scale": "attention_multiplier",
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "output_scale": "logits_scaling",
    "conv_taps": "conv_L_cache",
    "delta_heads": "linear_num_value_heads",
    "delta_key_heads": "linear_num_key_heads",
    "delta_dim": "linear_key_head_dim",
    "shared_kv_layers": "num_kv_shared_layers",
    "per_layer_width": "hidden_size_per_layer_input",
    "streams": "altup_num_inputs",
    "laurel_rank": "laurel_rank",
    "cutoffs": "activation_sparsity_pattern",
    "expert_ff_width": "moe_intermediate_size",
    "expert_weights_scale": "routed_scaling_factor",
    "dense_layers": "num_dense_layers",
}

_ACTIVATIONS = {
    "silu": Activation.SILU,
    "gelu_pytorch_tanh": Activation.GELU_TANH,
    "gelu_new": Activation.GELU_TANH,
    "gelu": Activation.GELU_ERF,
}
_ACTIVATION_KEYS = ("hidden_activation", "hidden_act", "activation_function")
_MIXERS = {
    "full_attention": Mixer.ATTENTION,
    "conv": Mixer.SHORT_CONV,
    "linear_attention": Mixer.DELTA_NET,
}
_LAYER_TYPES = {"full_attention": False, "sliding_attention": True}

T = TypeVar("T", int, float)


def text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of the text model: those of "text_config" come first."""
    text = config.get("text_config")
    return {**config, **text} if isinstance(text, Mapping) else dict(config)


def read_hf(config: Mapping[str, Any], arch: Architecture) -> Hyperparameters:
    """Reads the numbers of a config.json.

    Raises:
        CorruptFileError: a key is missing, has the wrong type or makes no sense.
        UnsupportedError: the checkpoint uses something the graph does not have.
    """
    stated = text_config(config)
    aliased = {usual: stated[key] for key, usual in arch.hf_aliases.items() if key in stated}
    keys = _Keys({**arch.hf_defaults, **aliased, **stated}, arch)
    _refuse_other_graphs(keys, arch)
    layers = check_size("layers", keys.number("layers", int), _name)
    width = check_size("width", keys.number("width", int), _name)
    heads = check_size("heads", keys.number("heads", int), _name)
    head_dim = check_size("head_dim", keys.number("head_dim", int, width // heads), _name)
    context = keys.number("context", int) - arch.first_position
    experts = 0
    if arch.only_experts or (arch.experts and keys.get("enable_moe_block")):
        experts = check_size("experts", keys.number("experts", int), _name)
    window = keys.number("window", int, 0) if keys.get("use_sliding_window", True) else 0
    kv_heads = keys.number("kv_heads", int, heads)
    windowed = _windowed(keys, arch, layers) if window else (False,) * layers
    head_dims, layer_kv_heads = _layer_heads(keys, arch, windowed, head_dim, kv_heads)
    head_dim, local_head_dim = _by_window(head_dims, windowed)
    rope, local_rope = _ropes(keys, arch, head_dim, local_head_dim or head_dim, context)
    dense_layers = keys.number("dense_layers", int) if arch.dense_layers else 0
    has_dense = experts > 0 and (arch.dense_beside_experts or dense_layers > 0)
    expert_width = has_dense or arch.dense_layers
    shared = keys.number("shared_kv_layers", int, 0) if arch.shares_kv else 0
    widths = _widths(keys, arch, layers, shared)
    ff_width = max(widths, default=0) or _ff_width(keys, arch.ff_factor * width or None)
    scale_width = keys.number("query_pre_attn_scalar", float, float(head_dim))
    delta = _delta(keys, arch)
    numbers = Hyperparameters(
        vocab_size=keys.number("vocab_size", int),
        context=context,
        token_types=keys.number("token_types", int) if arch.token_types else 0,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=max(layer_kv_heads, default=kv_heads),
        head_dim=head_dim,
        ff_width=keys.number("expert_ff_width", int) if expert_width else ff_width,
        dense_ff_width=ff_width if has_dense else 0,
        dense_layers=dense_layers,
        local_head_dim=local_head_dim,
        layer_kv_heads=varied(layer_kv_heads),
        layer_ff_width=varied(widths),
        shared_kv_layers=shared,
        key_is_value=_key_is_value(keys, arch, windowed, shared),
        per_layer_width=_per_layer_width(keys, arch),
        streams=keys.number("streams", int) if arch.several_streams else 1,
        laurel_rank=_laurel_rank(keys) if arch.laurel else 0,
        cutoffs=_cutoffs(keys, layers) if arch.sparse_gates else (),
        experts=experts,
        experts_used=keys.number("experts_used", int) if experts else 0,
        expert_weights_scale=keys.number("expert_weights_scale", float, 1.0) if experts else 1.0,
        norm_eps=keys.number("norm_eps", float),
        rope=rope,
        local_rope=local_rope if window else None,
        window=window,
        windowed=windowed,
        rotated=_rotated(keys, arch, layers),
        mixers=_mixers(keys, arch, layers),
        conv_taps=keys.number("conv_taps", int) if arch.recurrent else 0,
        delta_heads=delta.get("delta_heads", 0),
        delta_key_heads=delta.get("delta_key_heads", 0),
        delta_dim=delta.get("delta_dim", 0),
        attention_scale=keys.number(
            "attention_scale",
            float,
            arch.attention_scale or (scale_width**-0.5 if scale_width > 0 else math.nan),
        ),
        attention_softcap=keys.number("attention_softcap", float, 0.0),
        output_softcap=keys.number("output_softcap", float, 0.0),
        embedding_scale=keys.number(
            "embedding_scale", float, math.sqrt(width) if arch.scale_embedding else 1.0
        ),
        residual_scale=keys.number("residual_scale", float, 1.0),
        output_scale=1.0 / (keys.number("output_scale", float, 1.0) or math.nan),
        tied_output=arch.causal
        and bool(keys.get("tie_embedding", keys.get("tie_word_embeddings", arch.tied_output))),
    )
    numbers.check(_name)
    return numbers


def _name(field: str) -> str:
    return f"config.json: '{KEYS.get(field, field.replace('rope.', 'rope_parameters.'))}'"


class _Keys:
    """The keys of config.json that transformers reads for a family, with checked types."""

    def __init__(self, values: Mapping[str, Any], arch: Architecture) -> None:
        self._values = {k: v for k, v in values.items() if k not in arch.hf_ignored}
        self._keys = {**KEYS, **arch.hf_keys}

    def get(self, key: str, default: Any = None) -> Any:
        value = self._values.get(key)
        return default if value is None else value

    def number(self, field: str, kind: type[T], default: T | None = None) -> T:
        value = self.get(self._keys.get(field, field), default)
        if value is None:
            raise CorruptFileError(f"{_name(field)} is missing")
        return checked_number(_name(field), value, kind)

    def flags(self, key: str, layers: int) -> list[Any] | None:
        """Returns a list with one value a layer, None if there is none."""
        values = self.get(key)
        if values is None:
            return None
        if not isinstance(values, list) or len(values) != layers:
            raise CorruptFileError(f"config.json: '{key}' is not a list of {layers} values")
        return values


def _refuse_other_graphs(keys: _Keys, arch: Architecture) -> None:
    """Refuses what would run, but wrongly."""
    quantised = keys.get("quantization_config")
    if quantised and not _is_known_quantised(quantised, arch):
        raise UnsupportedError(
            "the checkpoint is quantised already ('quantization_config' in config.json)",
            hint="convert the original, unquantised checkpoint",
        )
    if keys.get("conv_bias"):
        raise UnsupportedError(f"{arch.name} with biases in its convolutions ('conv_bias')")
    if keys.get("clip_qkv"):
        raise UnsupportedError("clipped queries, keys and values ('clip_qkv')")
    if arch.only_experts:
        _refuse_other_experts(keys, arch)
    if arch.biases and keys.get("use_bias") is False:
        raise UnsupportedError(f"{arch.name} without biases ('use_bias')")
    # "vision" is for the tokens of pictures.
    if keys.get("use_bidirectional_attention") not in (None, False, "vision"):
        raise UnsupportedError("bidirectional attention ('use_bidirectional_attention')")
    for key, usual in arch.hf_required.items():
        if keys.get(key, usual) != usual:
            raise UnsupportedError(f"{arch.name} with {key!r} {keys.get(key)}")
    stated = (keys.get(key) for key in _ACTIVATION_KEYS)
    activation = next((name for name in stated if name is not None), None)
    if activation is not None and _ACTIVATIONS.get(str(activation)) is not arch.activation:
        raise UnsupportedError(f"activation {activation!r} in {arch.name}")


def _is_known_quantised(settings: Any, arch: Architecture) -> bool:
    return isinstance(settings, Mapping) and settings.get("quant_method") in arch.hf_quantised


def _refuse_other_experts(keys: _Keys, arch: Architecture) -> None:
    norm = bool(keys.get("norm_topk_prob", arch.expert_weights_norm))
    if norm is not arch.expert_weights_norm:
        raise UnsupportedError(f"{arch.name} with 'norm_topk_prob' {norm}: GGUF has no key for it")
    shared = keys.get("shared_expert_intermediate_size")
    if arch.has_shared_expert and shared != keys.number("ff_width", int):
        raise UnsupportedError(f"{arch.name} with a shared expert of another width ({shared})")
    if keys.get("mlp_only_layers") or keys.get("decoder_sparse_step", 1) != 1:
        raise UnsupportedError(f"{arch.name} with experts in some layers only")


def _ff_width(keys: _Keys, default: int | None) -> int:
    """Returns the width of the feed-forward blocks, which LFM2 states before it is rounded."""
    field = "ff_width" if keys.get("block_ff_dim") is None else "block_ff_dim"
    width = keys.number(field, int, default)
    if keys.get("block_auto_adjust_ff_dim"):
        width = int(keys.number("block_ffn_dim_multiplier", float, 1.0) * int(2 * width / 3))
        step = check_size("width", keys.number("block_multiple_of", int, 256), _name)
        width = -(-width // step) * step
    return width


def _layer_heads(
    keys: _Keys, arch: Architecture, windowed: tuple[bool, ...], head_dim: int, kv_heads: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns each layer's length of heads and number of KV heads; the latter if they may differ.

    What config.json says beside "per_layer_config" is of layers with a window, and of others unless
    it says so for them.
    """
    if not arch.windows_differ:
        return (head_dim,) * len(windowed), ()
    stated = keys.get("per_layer_config")
    if isinstance(stated, Mapping):
        layers = [_Keys(stated.get(str(i), {}), arch) for i in range(len(windowed))]
        return (
            tuple(layer.number("head_dim", int, head_dim) for layer in layers),
            tuple(layer.number("kv_heads", int, kv_heads) for layer in layers),
        )
    dim = keys.number("global_head_dim", int)
    other = keys.number("num_global_key_value_heads", int, kv_heads)
    heads = other if keys.get("attention_k_eq_v") else kv_heads
    return (
        tuple(head_dim if local else dim for local in windowed),
        tuple(kv_heads if local else heads for local in windowed),
    )


def _by_window(dims: tuple[int, ...], windowed: tuple[bool, ...]) -> tuple[int, int]:
    """Returns the length of heads in layers without a window and, where it is another, with one."""
    local = {dim for dim, here in zip(dims, windowed, strict=True) if here}
    others = {dim for dim, here in zip(dims, windowed, strict=True) if not here} or local
    if len(others) > 1 or len(local) > 1:
        raise UnsupportedError("heads of more lengths than with a window and without one")
    dim = others.pop()
    return dim, 0 if local <= {dim} else local.pop()


def _key_is_value(
    keys: _Keys, arch: Architecture, windowed: tuple[bool, ...], shared: int
) -> tuple[bool, ...]:
    if not (arch.keys_as_values and keys.get("attention_k_eq_v")):
        return ()
    first = len(windowed) - shared  # that has no keys
    found = tuple(i < first and not local for i, local in enumerate(windowed))
    return found if any(found) else ()


def _per_layer_width(keys: _Keys, arch: Architecture) -> int:
    width = keys.number("per_layer_width", int, 0) if arch.per_layer_inputs else 0
    vocab = keys.number("vocab_size", int)
    own = keys.number("vocab_size_per_layer_input", int, vocab)
    if width and own != vocab and not (arch.padded and 0 < own < vocab):
        raise UnsupportedError(
            f"{arch.name} with inputs of layers for another vocabulary "
            "('vocab_size_per_layer_input')"
        )
    return width


def _widths(keys: _Keys, arch: Architecture, layers: int, shared: int) -> tuple[int, ...]:
    """The widths of feed-forward blocks; nothing where all have the same, which one number says."""
    if not arch.widths_differ:
        return ()
    if isinstance(keys.get("intermediate_size"), list):
        stated = keys.flags("intermediate_size", layers) or []
        return tuple(checked_number(_name("ff_width"), width, int) for width in stated)
    width, wide = keys.number("ff_width", int), 2 if keys.get("use_double_wide_mlp") else 1
    return tuple(width * (1 if i < layers - shared else wide) for i in range(layers))


def _laurel_rank(keys: _Keys) -> int:
    return check_size("laurel_rank", keys.number("laurel_rank", int), _name)


def _cutoffs(keys: _Keys, layers: int) -> tuple[float, ...]:
    """Where gates are cut off, of each layer's share of gates that do not count.

    Gates are taken to be normally distributed. By default transformers cuts 95 % of them off in the
    first ten layers of models that have more.
    """
    usual = [0.95 if layers > 10 and i < 10 else 0.0 for i in range(layers)]
    shares = keys.flags("activation_sparsity_pattern", layers) or usual
    found = tuple(_cutoff(checked_number(_name("cutoffs"), share, float)) for share in shares)
    return found if any(cutoff > -math.inf for cutoff in found) else ()


def _cutoff(share: float) -> float:
    if not 0 <= share < 1:
        raise CorruptFileError(f"{_name('cutoffs')} has {share}, expected at least 0 and below 1")
    return NormalDist().inv_cdf(share) if share else -math.inf


def _delta(keys: _Keys, arch: Architecture) -> dict[str, int]:
    if arch.recurrent is not Mixer.DELTA_NET:
        return {}
    fields = ("delta_heads", "delta_key_heads", "delta_dim")
    numbers = {field: keys.number(field, int) for field in fields}
    if keys.number("linear_value_head_dim", int, numbers["delta_dim"]) != numbers["delta_dim"]:
        raise UnsupportedError(f"{arch.name} with keys and values of different lengths")
    return numbers


def _mixers(keys: _Keys, arch: Architecture, layers: int) -> tuple[Mixer, ...]:
    recurrent = arch.recurrent
    if recurrent is None:
        return ()
    types = keys.flags("layer_types", layers)
    if types is None:
        attend = keys.get("full_attn_idxs")
        if attend is not None:
            return mixers_of(recurrent, (i in attend for i in range(layers)))
        period = keys.number("full_attention_interval", int, arch.attention_period)
        return mixers_of(recurrent, (not other for other in period_pattern(period, layers)))
    unknown = sorted({str(t) for t in types if _MIXERS.get(t) not in (Mixer.ATTENTION, recurrent)})
    if unknown:
        raise UnsupportedError(f"layers of type {', '.join(unknown)} ('layer_types')")
    return mixers_of(recurrent, (_MIXERS[t] is Mixer.ATTENTION for t in types))


def _windowed(keys: _Keys, arch: Architecture, layers: int) -> tuple[bool, ...]:
    types = keys.flags("layer_types", layers)
    if types is not None:
        unknown = sorted({str(t) for t in types} - set(_LAYER_TYPES))
        if unknown:
            raise UnsupportedError(f"layers of type {', '.join(unknown)} ('layer_types')")
        return _but_last(arch, tuple(_LAYER_TYPES[t] for t in types))
    first = keys.get("max_window_layers")
    if first is not None:
        first = checked_number("config.json: 'max_window_layers'", first, int)
        return tuple(i >= first for i in range(layers))
    period = keys.get("sliding_window_pattern", arch.window_period)
    pattern = period_pattern(
        checked_number("config.json: 'sliding_window_pattern'", period, int),
        layers,
        first=arch.window_first,
    )
    return _but_last(arch, pattern)


def _but_last(arch: Architecture, windowed: tuple[bool, ...]) -> tuple[bool, ...]:
    return (*windowed[:-1], False) if arch.last_is_global else windowed


def _rotated(keys: _Keys, arch: Architecture, layers: int) -> tuple[bool, ...]:
    if not arch.no_rope_period:
        return (True,) * layers
    flags = keys.flags("no_rope_layers", layers)  # 1 is a layer *with* rotary embedding
    if flags is not None:
        return tuple(bool(flag) for flag in flags)
    period = keys.get("no_rope_layer_interval", arch.no_rope_period)
    return period_pattern(
        checked_number("config.json: 'no_rope_layer_interval'", period, int), layers
    )


def _ropes(
    keys: _Keys, arch: Architecture, head_dim: int, local_head_dim: int, context: int
) -> tuple[Rope, Rope | None]:
    """Reads the embedding of the global layers and, where it is another, of the local ones."""
    stated = keys.get("rope_parameters") or keys.get("rope_scaling") or {}
    if not isinstance(stated, Mapping):
        raise CorruptFileError("config.json: 'rope_parameters' is not an object")
    original = keys.get("original_max_position_embeddings")
    beside = {"original_max_position_embeddings": original} if original else {}

    def read(layer_type: str, flat: Mapping[str, Any], base: Any, dim: int) -> Rope:
        nested = stated.get(layer_type)
        return read_rope(
            {
                "rope_theta": base,
                "partial_rotary_factor": keys.get("partial_rotary_factor"),
                **(nested if isinstance(nested, Mapping) else flat),
                **beside,
            },
            arch,
            head_dim=dim,
            context=context,
        )

    rope = read("full_attention", stated, keys.get("rope_theta"), head_dim)
    if arch.local_rope_base is None:
        return rope, None
    local = keys.get("rope_local_base_freq")
    return rope, read("sliding_attention", {}, local, local_head_dim)
