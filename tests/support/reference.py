"""A transformer in numpy float64: the reference for engines, written to be read.

Driven by ``ModelConfig`` and the graph's tensors under their GGUF names; no cache, no
chunks, one sequence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgeinfer.arch.config import (
    Activation,
    Mixer,
    ModelConfig,
    Norm,
    NormPlacement,
    QkNorm,
    RopeStyle,
    RopeTable,
    Router,
)

Array = NDArray[np.float64]
Tensors = Mapping[str, NDArray[np.float32]]
Weight = Callable[[str], Array]


def forward(config: ModelConfig, tensors: Tensors, tokens: Sequence[int]) -> Array:
    """Returns the logits of every token, (tokens, vocab)."""
    x = hidden_states(config, tensors, tokens)
    output = tensors["token_embd.weight" if config.tied_output else "output.weight"]
    logits = x @ output.astype(np.float64).T * config.output_scale
    return _cap(logits, config.output_softcap)


def hidden_states(config: ModelConfig, tensors: Tensors, tokens: Sequence[int]) -> Array:
    """Returns the normalised hidden state of every token, (tokens, width)."""
    x = tensors["token_embd.weight"][list(tokens)].astype(np.float64)  # (tokens, width)
    x = x * config.embedding_scale
    if config.positions:
        x = x + tensors["position_embd.weight"][: len(x)]
    if config.token_types:
        x = x + tensors["token_types.weight"][0]
    if "token_embd_norm.weight" in tensors:
        x = _norm(config, _model(tensors), "token_embd_norm", x)
    inputs = _layer_inputs(config, tensors, tokens, x) if config.per_layer_width else None
    streams = _widen(config, tensors, x) if config.streams > 1 else x[None]
    kept: dict[int, tuple[Array, Array]] = {}
    for i in range(config.layers):
        weight = _block(tensors, i)
        if config.streams > 1:
            streams = _predict(config, weight, streams)
            x = streams[0]
        h = before = _norm_before(config, weight, "attn_norm", x)
        if config.mixer(i) is Mixer.ATTENTION:
            h = _attention(config.at(i), weight, i, h, kept)
        else:
            h = _MIXERS[config.mixer(i)](config, weight, i, h)
        h = _norm_after(config, weight, "post_attention_norm", h)
        x = _norm_sum(config, weight, "attn_output_norm", x + config.residual_scale * h)
        if config.laurel_rank:
            beside = _linear(weight, "laurel_r", _linear(weight, "laurel_l", before))
            x = (x + before + _norm(config, weight, "laurel_post_norm", beside)) / np.sqrt(2)
        if config.has_beside:
            h = _dense_and_mixture(config, weight, x)
        else:
            h = _norm_before(config, weight, "ffn_norm", x)
            if config.at(i).experts:
                h = _mixture(config, weight, h)
            else:
                cutoff = config.layer_cutoff[i] if config.layer_cutoff else -math.inf
                h = _feed_forward(config, weight, h, cutoff=cutoff)
        h = _norm_after(config, weight, "post_ffw_norm", h)
        x = _norm_sum(config, weight, "layer_output_norm", x + config.residual_scale * h)
        if config.streams > 1:
            streams = _correct(config, weight, streams, x)
            x = streams[0] * weight("altup_correct_scale.weight")
        if inputs is not None:
            gate = ACTIVATIONS[config.activation](_linear(weight, "inp_gate", x))
            h = _norm(config, weight, "post_norm", _linear(weight, "proj", gate * inputs[:, i]))
            streams = np.concatenate([streams[:1], streams[1:] + h])
            x = x + h
        scale = weight("layer_output_scale.weight")
        x = x * scale if scale.size else x
    if config.streams > 1:
        x = _narrow(config, tensors, streams)
    if config.norm_placement is NormPlacement.SUM:
        return x
    return _norm(config, _model(tensors), "output_norm", x)


def _widen(config: ModelConfig, tensors: Tensors, x: Array) -> Array:
    """The streams that layers begin with, (streams, tokens, width): all as large as the first."""
    others = [x @ tensors[f"altup_proj.{j}.weight"].T for j in range(config.streams - 1)]
    return np.array([x, *(_as_large_as(x, other) for other in others)])


def _narrow(config: ModelConfig, tensors: Tensors, streams: Array) -> Array:
    """The mean of the streams, each through a matrix of its own and as large as the first."""
    x, *others = streams
    seen = [y @ tensors[f"altup_unembd_proj.{j}.weight"].T for j, y in enumerate(others)]
    mean: Array = np.mean([x, *(_as_large_as(x, y) for y in seen)], axis=0)
    return mean


def _as_large_as(x: Array, y: Array) -> Array:
    of_x, of_y = (np.mean(z * z, axis=-1, keepdims=True) for z in (x, y))
    return y * np.sqrt(of_x / np.maximum(of_y, 1e-5))


def _predict(config: ModelConfig, weight: Weight, streams: Array) -> Array:
    """Each stream and a mixture of all, by what the first one is."""
    n = config.streams
    mixing = _route(config, weight, streams[0]) @ weight("altup_predict_coef.weight").T
    return streams + np.einsum("tqp,ptw->qtw", mixing.reshape(-1, n, n), streams)


def _correct(config: ModelConfig, weight: Weight, streams: Array, x: Array) -> Array:
    """Each stream and its share of what the first was not predicted to be."""
    shares = 1 + _route(config, weight, x) @ weight("altup_correct_coef.weight").T
    return streams + np.einsum("tj,tw->jtw", shares, x - streams[0])


def _route(config: ModelConfig, weight: Weight, x: Array) -> Array:
    seen = _norm(config, weight, "altup_router_norm", x) / config.width
    return np.tanh(_linear(weight, "altup_router", seen))


def _layer_inputs(config: ModelConfig, tensors: Tensors, tokens: Sequence[int], x: Array) -> Array:
    """What each layer takes in of every token, (tokens, layers, per_layer_width)."""
    weight, n = _model(tensors), config.per_layer_width
    rows = tensors["per_layer_token_embd.weight"][list(tokens)].astype(np.float64) * np.sqrt(n)
    seen = _linear(weight, "per_layer_model_proj", x) / np.sqrt(config.width)
    shape = (len(x), config.layers, n)
    seen = _rms_norm(seen.reshape(shape), weight("per_layer_proj_norm.weight"), config.norm_eps)
    return (seen + rows.reshape(shape)) / np.sqrt(2)


def _norm_before(config: ModelConfig, weight: Weight, name: str, x: Array) -> Array:
    if config.norm_placement in (NormPlacement.POST, NormPlacement.SUM):
        return x
    if not config.causal and not weight(f"{name}.weight").size:
        return x  # ModernBERT's first
    return _norm(config, weight, name, x)


def _norm_after(config: ModelConfig, weight: Weight, name: str, x: Array) -> Array:
    if config.norm_placement in (NormPlacement.PRE, NormPlacement.SUM):
        return x
    return _norm(config, weight, name, x)


def _norm_sum(config: ModelConfig, weight: Weight, name: str, x: Array) -> Array:
    if config.norm_placement is not NormPlacement.SUM:
        return x
    return _norm(config, weight, name, x)


def _norm(config: ModelConfig, weight: Weight, name: str, x: Array) -> Array:
    if config.norm is Norm.RMS:
        return _rms_norm(x, weight(f"{name}.weight"), config.norm_eps)
    x = x - x.mean(axis=-1, keepdims=True)
    variance = np.mean(x * x, axis=-1, keepdims=True)
    scaled = x / np.sqrt(variance + config.norm_eps) * weight(f"{name}.weight")
    bias = weight(f"{name}.bias")
    return scaled + bias if bias.size else scaled


def _attention(
    config: ModelConfig, weight: Weight, i: int, x: Array, kept: dict[int, tuple[Array, Array]]
) -> Array:
    """Layers that have no keys and values read those ``kept`` of another."""
    n, dim = len(x), config.head_dim
    q, own = _linear(weight, "attn_q", x), config.has_kv(i)
    if config.attention_gate:
        q, gate = np.split(q.reshape(n, config.heads, 2 * dim), 2, axis=-1)
    if config.qk_norm is QkNorm.FULL:
        q = _rms_norm(q, weight("attn_q_norm.weight"), config.norm_eps)
    q = q.reshape(n, config.heads, dim)
    if config.qk_norm is QkNorm.HEAD:
        q = _rms_norm(q, weight("attn_q_norm.weight"), config.norm_eps)
    if config.layer_rope[i] >= 0:
        q = _rotate(config.rope_tables[config.layer_rope[i]], config.rope_style, q)
    k, v = _keys_and_values(config, weight, i, x) if own else kept[config.layer_kv[i]]
    kept[i] = k, v
    group = config.heads // config.kv_heads
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    scores = np.einsum("qhd,khd->hqk", q, k) * config.attention_scale
    scores = _cap(scores, config.attention_softcap)
    query, key = np.arange(n)[:, None], np.arange(n)[None, :]
    visible = key <= query if config.causal else np.ones((n, n), bool)
    if config.layer_window[i] and config.causal:
        visible &= query - key < config.layer_window[i]
    elif config.layer_window[i]:
        visible &= np.abs(query - key) <= config.layer_window[i] // 2
    scores = np.where(visible, scores, -np.inf)
    sinks = weight("attn_sinks.weight")
    mixed = np.einsum("hqk,khd->qhd", _softmax(scores, sinks[:, None] if sinks.size else None), v)
    if config.attention_gate:
        mixed = mixed * _sigmoid(gate)
    return _linear(weight, "attn_output", mixed.reshape(n, config.heads * dim))


def _keys_and_values(config: ModelConfig, weight: Weight, i: int, x: Array) -> tuple[Array, Array]:
    """Of each head, (tokens, kv heads, head_dim); keys are turned."""
    k = _linear(weight, "attn_k", x)
    v = k if config.key_is_value(i) else _linear(weight, "attn_v", x)
    if config.qk_norm is QkNorm.FULL:
        k = _rms_norm(k, weight("attn_k_norm.weight"), config.norm_eps)
    k, v = (rows.reshape(len(x), config.kv_heads, config.head_dim) for rows in (k, v))
    if config.qk_norm is QkNorm.HEAD:
        k = _rms_norm(k, weight("attn_k_norm.weight"), config.norm_eps)
    if config.value_norm:
        v = _rms_norm(v, np.ones(1), config.norm_eps)
    if config.layer_rope[i] >= 0:
        k = _rotate(config.rope_tables[config.layer_rope[i]], config.rope_style, k)
    return k, v


def _short_convolution(config: ModelConfig, weight: Weight, i: int, x: Array) -> Array:
    """Gates around a causal convolution of a few tokens, channel by channel."""
    b, c, x = np.split(_linear(weight, "shortconv.in_proj", x), 3, axis=-1)
    mixed = _causal_convolution(weight("shortconv.conv.weight"), b * x)
    return _linear(weight, "shortconv.out_proj", c * mixed)


def _causal_convolution(kernel: Array, x: Array) -> Array:
    """The last tap of the kernel (channels, taps) is a token's own."""
    taps = kernel.shape[1]
    padded = np.concatenate([np.zeros((taps - 1, x.shape[1])), x])
    parts = [padded[tap : tap + len(x)] * kernel[:, tap] for tap in range(taps)]
    return np.sum(parts, axis=0)


def _gated_delta_net(config: ModelConfig, weight: Weight, i: int, x: Array) -> Array:
    """A memory of values by keys that forgets, and learns what it got wrong."""
    n, dim, heads, key_heads = len(x), config.delta_dim, config.delta_heads, config.delta_key_heads
    mixed = _silu(_causal_convolution(weight("ssm_conv1d.weight"), _linear(weight, "ssm_qkv", x)))
    keys = key_heads * dim
    q, k, v = np.split(mixed, [keys, 2 * keys], axis=-1)
    q, k, v = q.reshape(n, -1, dim), k.reshape(n, -1, dim), v.reshape(n, heads, dim)
    sharing = heads // key_heads
    if config.delta_tiled:
        beta, alpha = _linear(weight, "ssm_beta", x), _linear(weight, "ssm_alpha", x)
        q, k = np.tile(q, (1, sharing, 1)), np.tile(k, (1, sharing, 1))
    else:
        both = _linear(weight, "ssm_ba", x).reshape(n, key_heads, 2, sharing)
        beta, alpha = both[:, :, 0].reshape(n, heads), both[:, :, 1].reshape(n, heads)
        q, k = np.repeat(q, sharing, axis=1), np.repeat(k, sharing, axis=1)
    q, k = _of_length_one(q) / np.sqrt(dim), _of_length_one(k)
    beta = _sigmoid(beta)[..., None]
    decay = np.exp(weight("ssm_a") * np.log1p(np.exp(alpha + weight("ssm_dt.bias"))))
    state, out = np.zeros((heads, dim, dim)), np.empty((n, heads, dim))
    for t in range(n):
        state = state * decay[t][:, None, None]
        known = np.einsum("hkv,hk->hv", state, k[t])
        state = state + np.einsum("hk,hv->hkv", k[t], beta[t] * (v[t] - known))
        out[t] = np.einsum("hkv,hk->hv", state, q[t])
    out = _rms_norm(out, weight("ssm_norm.weight"), config.norm_eps).reshape(n, heads * dim)
    return _linear(weight, "ssm_out", out * _silu(_linear(weight, "ssm_gate", x)))


def _of_length_one(x: Array) -> Array:
    return x / np.sqrt(np.sum(x * x, axis=-1, keepdims=True) + 1e-6)


_MIXERS = {
    Mixer.SHORT_CONV: _short_convolution,
    Mixer.DELTA_NET: _gated_delta_net,
}


def _feed_forward(
    config: ModelConfig,
    weight: Weight,
    x: Array,
    expert: str = "",
    *,
    cutoff: float = -math.inf,
) -> Array:
    up = _linear(weight, f"ffn_up{expert}", x)
    if config.activation is Activation.CLAMPED_SWIGLU:
        gate = np.minimum(_linear(weight, f"ffn_gate{expert}", x), 7)
        up = gate / (1 + np.exp(-1.702 * gate)) * (np.clip(up, -7, 7) + 1)
        return _linear(weight, f"ffn_down{expert}", up)
    activation = ACTIVATIONS[config.activation]
    if config.gated:
        gate = _linear(weight, f"ffn_gate{expert}", x)
        if cutoff > -math.inf:
            mean, deviation = (f(gate, axis=-1, keepdims=True) for f in (np.mean, np.std))
            gate = np.maximum(gate - mean - cutoff * deviation, 0)
        up = activation(gate) * up
    else:
        up = activation(up)
    return _linear(weight, f"ffn_down{expert}", up)


def _dense_and_mixture(config: ModelConfig, weight: Weight, x: Array) -> Array:
    """A block that all tokens take beside the experts, and the norms of each."""
    y = _feed_forward(config, weight, _norm(config, weight, "ffn_norm", x))
    y = _norm(config, weight, "post_ffw_norm_1", y)
    seen = _rms_norm(x, weight("ffn_gate_inp.scale"), config.norm_eps) / np.sqrt(config.width)
    p = _softmax(_linear(weight, "ffn_gate_inp", seen))
    h = _mixture(config, weight, _norm(config, weight, "pre_ffw_norm_2", x), p)
    return y + _norm(config, weight, "post_ffw_norm_2", h)


def _mixture(config: ModelConfig, weight: Weight, x: Array, p: Array | None = None) -> Array:
    """The experts that the router finds most probable, each weighted by its probability ``p``.

    Those of sigmoids are chosen by their sum with a bias.
    """
    bias = np.zeros(1)
    if p is None and config.router is Router.SIGMOID:
        p, bias = _sigmoid(_linear(weight, "ffn_gate_inp", x)), weight("exp_probs_b.bias")
    elif p is None:
        p = _softmax(_linear(weight, "ffn_gate_inp", x))
    chosen = np.argsort(-(p + bias), axis=-1, kind="stable")[:, : config.experts_used]
    weights = np.zeros_like(p)
    np.put_along_axis(weights, chosen, np.take_along_axis(p, chosen, axis=-1), axis=-1)
    if config.expert_weights_norm:
        weights /= weights.sum(axis=-1, keepdims=True)
    weights = weights * config.expert_weights_scale
    factors = weight("ffn_down_exps.scale")
    if factors.size:
        weights = weights * factors
    outputs = [_feed_forward(config, weight, x, f".{e}") for e in range(config.experts)]
    y: Array = np.einsum("te,etw->tw", weights, np.array(outputs))
    if config.shared_expert:
        gate = _sigmoid(x @ weight("ffn_gate_inp_shexp.weight").reshape(-1))
        y = y + gate[:, None] * _feed_forward(config, weight, x, "_shexp")
    return y


def _rotate(table: RopeTable, style: RopeStyle, x: Array) -> Array:
    """Turns the pairs of each head of x (tokens, heads, head_dim); lanes beyond stay."""
    frequencies = np.array(table.inverse_frequencies)
    pairs = len(frequencies)
    angles = np.arange(len(x))[:, None] * frequencies  # (tokens, pairs)
    cos = np.cos(angles)[:, None] * table.magnitude
    sin = np.sin(angles)[:, None] * table.magnitude
    if style is RopeStyle.HALVES:
        first, second = slice(0, pairs), slice(pairs, 2 * pairs)
    else:
        first, second = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
    turned = x.copy()
    turned[..., first] = x[..., first] * cos - x[..., second] * sin
    turned[..., second] = x[..., second] * cos + x[..., first] * sin
    return turned


def _rms_norm(x: Array, weight: NDArray[np.floating], eps: float) -> Array:
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def _linear(weight: Weight, name: str, x: Array) -> Array:
    y: Array = x @ weight(f"{name}.weight").T
    bias = weight(f"{name}.bias")
    return y + bias if bias.size else y


def _cap(x: Array, cap: float) -> Array:
    return cap * np.tanh(x / cap) if cap else x


def _softmax(x: Array, sink: Array | None = None) -> Array:
    """Of the last axis; a sink is a score more, whose probability is left out."""
    most = x.max(axis=-1, keepdims=True)
    e = np.exp(x - most)
    total = e.sum(axis=-1, keepdims=True)
    return e / (total if sink is None else total + np.exp(sink[..., None] - most))


def _sigmoid(x: Array) -> Array:
    y: Array = 1 / (1 + np.exp(-x))
    return y


def _gelu_erf(x: Array) -> Array:
    erf = np.vectorize(math.erf, otypes=[np.float64])
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def _silu(x: Array) -> Array:
    return x * _sigmoid(x)


def _gelu_tanh(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS = {
    Activation.SILU: _silu,
    Activation.GELU_TANH: _gelu_tanh,
    Activation.GELU_ERF: _gelu_erf,
}


def _block(tensors: Tensors, i: int) -> Weight:
    return _model(tensors, f"blk.{i}.")


def _model(tensors: Tensors, prefix: str = "") -> Weight:
    def weight(name: str) -> Array:
        """A tensor; an empty array for biases, sinks or ModernBERT's first norm, if not there."""
        optional = (".bias", "_norm.weight", "sinks.weight", "scale", "scale.weight")
        if name.endswith(optional) and prefix + name not in tensors:
            return np.empty(0)
        return tensors[prefix + name].astype(np.float64)

    return weight
