"""What a family of language models is, as data. The defaults describe Llama.

A family is one module of this package with an ``ARCHITECTURE``. The converters, the planner
and the engines read it; nothing else in the project knows a family by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from edgeinfer.arch.config import Activation, Mixer, Norm, NormPlacement, QkNorm, RopeStyle, Router

# Tensors outside the blocks: GGUF name -> name in a Hugging Face checkpoint.
MODEL_TENSORS: Mapping[str, str] = MappingProxyType(
    {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight",
    }
)

# Spellings in a checkpoint without an output matrix, as models for embeddings have.
HEADLESS: Mapping[str, str] = MappingProxyType(
    {
        "embed_tokens.": "model.embed_tokens.",
        "layers.": "model.layers.",
        "norm.": "model.norm.",
    }
)

USUAL_BLOCKS = "model.layers.{}."

# Tensors of block i: "blk.{i}." + GGUF name -> ``blocks`` + checkpoint name.
BLOCK_TENSORS: Mapping[str, str] = MappingProxyType(
    {
        "attn_norm.weight": "input_layernorm.weight",
        "attn_q.weight": "self_attn.q_proj.weight",
        "attn_k.weight": "self_attn.k_proj.weight",
        "attn_v.weight": "self_attn.v_proj.weight",
        "attn_output.weight": "self_attn.o_proj.weight",
        "ffn_norm.weight": "post_attention_layernorm.weight",
        "ffn_gate.weight": "mlp.gate_proj.weight",
        "ffn_up.weight": "mlp.up_proj.weight",
        "ffn_down.weight": "mlp.down_proj.weight",
    }
)

# The feed-forward block of a model with experts, in place of its three matrices: a router that
# scores the experts, and the matrices of all experts stacked, (experts, rows, columns). A
# checkpoint has a tensor for each expert, "{}".
EXPERT_TENSORS: Mapping[str, str] = MappingProxyType(
    {
        "ffn_gate_inp.weight": "mlp.gate.weight",
        "ffn_gate_exps.weight": "mlp.experts.{}.gate_proj.weight",
        "ffn_up_exps.weight": "mlp.experts.{}.up_proj.weight",
        "ffn_down_exps.weight": "mlp.experts.{}.down_proj.weight",
    }
)
_DENSE = ("ffn_gate.weight", "ffn_up.weight", "ffn_down.weight")

# One more that all tokens take, weighted by a gate of its own.
SHARED_EXPERT_TENSORS: Mapping[str, str] = MappingProxyType(
    {
        "ffn_gate_inp_shexp.weight": "mlp.shared_expert_gate.weight",
        "ffn_gate_shexp.weight": "mlp.shared_expert.gate_proj.weight",
        "ffn_up_shexp.weight": "mlp.shared_expert.up_proj.weight",
        "ffn_down_shexp.weight": "mlp.shared_expert.down_proj.weight",
    }
)

# Biases that a switch in config.json turns on, in any family.
BIAS_TENSORS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "attention_bias": {
            "attn_q.bias": "self_attn.q_proj.bias",
            "attn_k.bias": "self_attn.k_proj.bias",
            "attn_v.bias": "self_attn.v_proj.bias",
            "attn_output.bias": "self_attn.o_proj.bias",
        },
        "mlp_bias": {
            "ffn_gate.bias": "mlp.gate_proj.bias",
            "ffn_up.bias": "mlp.up_proj.bias",
            "ffn_down.bias": "mlp.down_proj.bias",
        },
    }
)

# Inputs that every layer has of its own: a table of them and what the embedding adds, and how a
# block takes them in.
PER_LAYER_MODEL: Mapping[str, str] = MappingProxyType(
    {
        "per_layer_token_embd.weight": "model.embed_tokens_per_layer.weight",
        "per_layer_model_proj.weight": "model.per_layer_model_projection.weight",
        "per_layer_proj_norm.weight": "model.per_layer_projection_norm.weight",
    }
)
PER_LAYER_BLOCK: Mapping[str, str] = MappingProxyType(
    {
        "inp_gate.weight": "per_layer_input_gate.weight",
        "proj.weight": "per_layer_projection.weight",
        "post_norm.weight": "post_per_layer_input_norm.weight",
    }
)

# What layers lack that read another's keys and values.
KV_TENSORS = frozenset(
    {
        *("attn_k.weight", "attn_v.weight", "attn_k.bias", "attn_v.bias"),
        "attn_k_norm.weight",
    }
)

# What stands in place of attention's tensors in layers that mix their tokens otherwise.
MIXER_TENSORS: Mapping[Mixer, Mapping[str, str]] = MappingProxyType(
    {
        Mixer.ATTENTION: {},
        Mixer.SHORT_CONV: {
            "shortconv.in_proj.weight": "conv.in_proj.weight",
            "shortconv.conv.weight": "conv.conv.weight",
            "shortconv.out_proj.weight": "conv.out_proj.weight",
        },
        Mixer.DELTA_NET: {
            "ssm_conv1d.weight": "linear_attn.conv1d.weight",
            "ssm_a": "linear_attn.A_log",
            "ssm_dt.bias": "linear_attn.dt_bias",
            "ssm_norm.weight": "linear_attn.norm.weight",
            "ssm_out.weight": "linear_attn.out_proj.weight",
        },
    }
)

# Tensors of a file that hold several of the graph's, one below the other, in this order; or one,
# that has another name in the graph.
FUSED_QKV: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "attn_qkv.weight": ("attn_q.weight", "attn_k.weight", "attn_v.weight"),
        "attn_qkv.bias": ("attn_q.bias", "attn_k.bias", "attn_v.bias"),
    }
)

NOTHING: Mapping[str, Any] = MappingProxyType({})


def is_of_attention(kind: str) -> bool:
    """Says whether layers without attention lack a kind of tensor."""
    return kind.startswith("attn_") and not kind.startswith("attn_norm.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A family of models that share one graph.

    Attributes:
        name: general.architecture of its GGUF files.
        hf_classes: "architectures" of its config.json files.
        variant_of: set if another family owns the GGUF name (Mistral's is Llama's).
        gated: its feed-forward block has a gate.
        causal: tokens see those before them; else all of their text, and there is no output matrix.
        token_types: the first row of a table is added to every token.
        learned_positions: a row of a table is added to the embedding, for each position.
        first_position: rows of a checkpoint's table before that of a text's first token.
        ff_factor: the feed-forward width over the width where config.json does not say; 0: it does.
        window_period: which layers have the sliding window where the file does not say:
            all but every n-th; 0 is all, 1 is none.
        window_first: of n layers the first has no window, not the last.
        default_window: the window where a GGUF has no key for it.
        no_rope_period: every n-th layer has no rotary embedding; 0 is none, 1 all.
        local_rope_base: base of windowed layers' rotary embedding, None if all share one.
        scale_embedding: token embeddings are multiplied by sqrt(width).
        wide_scale_layers: with this many layers the attention scale is 1/sqrt(width/heads)
            instead of 1/sqrt(head_dim): how GGUF tells Gemma's 27B from the smaller ones.
        attention_scale: what multiplies q.k; 0: as ``wide_scale_layers`` says.
        attention_softcap: cap of the attention scores where a GGUF has no key for it.
        output_softcap: cap of the logits where a GGUF has no key for it.
        yarn_truncates: YaRN's blend begins and ends at whole pairs.
        rope_switch: a GGUF's "rope.scaling.finetuned", if false, means no rotary embedding.
        requires_logit_scale: llama.cpp does not open a file without "logit_scale".
        tied_output: config.json's tie_word_embeddings where it does not say.
        experts: tensors of its models with experts, as ``EXPERT_TENSORS``; empty if there are none.
        only_experts: it has no models without experts.
        dense_beside_experts: where there are experts, there is the block without them, too.
        dense_layers: the first of its layers may have one block in place of experts.
        router: how the scores of experts become their weights.
        expert_weights_norm: the weights of the experts that a token takes add up to 1.
        recurrent: what mixes the tokens in its layers without attention; None if all have it.
        recurrent_block: more tensors of its recurrent layers, beside ``MIXER_TENSORS``.
        attention_period: each n-th layer has attention where the file does not say.
        delta_tiled: the order of value heads in its GGUFs: all first ones of the key heads, then
            all second ones; else those of a key head are neighbours.
        attention_gate: beside each head's query there is a gate of its output.
        windows_differ: layers with a window have another length of heads, and layers may have
            other numbers of KV heads.
        widths_differ: layers may have other widths of feed-forward blocks.
        last_is_global: the last layer has no window, whatever the file says.
        shares_kv: the last layers may read the keys and values of earlier ones.
        requires_kv: llama.cpp does not open a file in which these have no keys and values, which
            it does not read either.
        keys_as_values: layers without a window may have no matrix of values.
        value_norm: each head's values have a norm, without weights.
        per_layer_inputs: its models may have ``PER_LAYER_MODEL``.
        several_streams: the residual stream is several (AltUp).
        laurel: a product of two narrow matrices runs beside attention (LAuReL).
        sparse_gates: layers may keep only the largest gates of their feed-forward blocks.
        rope_sections: how a GGUF divides rotary pairs between time and places in a picture, which
            are all the same for text; empty if it does not.
        predicts_ahead: files may have blocks that guess tokens ahead, which are not read.
        kv_heads_tell_mixers: a GGUF says which layers have attention by their KV heads.
        hf_keys: our field -> the key of config.json, where it is not the usual one.
        hf_aliases: other keys that config.json may have in place of the usual ones.
        hf_defaults: other values transformers takes where config.json has no key.
        hf_ignored: keys of config.json that transformers does not read for this family.
        hf_quantised: ways of quantising experts ("quant_method") that its checkpoints may have:
            blocks and scales in place of a tensor.
        rope_kinds: RoPE types of config.json that mean another type in this family.
        hf_required: keys of config.json whose other values ask for another graph.
        model: changes to ``MODEL_TENSORS``; None takes a tensor away.
        blocks: what names in a checkpoint's block "{}" begin with.
        block: changes to ``BLOCK_TENSORS``; None takes a tensor away.
        not_first: those of ``block`` that the first block lacks.
        padded: tensors of which a checkpoint may have fewer rows, whose first stands for the rest.
        biases: biases every checkpoint of the family has: GGUF name -> checkpoint name.
        fused: file tensors that hold several of the graph's, in row order, or one under
            another name.
        transforms: GGUF tensor name, "blk.{i}." left off -> name in ``transforms.TRANSFORMS``.
        prefixes: beginnings of checkpoint names -> the usual ones.
        suffixes: ends of checkpoint names -> the usual ones.
        skipped: beginnings of checkpoint tensors that are not part of the text model.
        buffers: ends of names of tensors without weights that old checkpoints have.
    """

    name: str
    hf_classes: tuple[str, ...]
    variant_of: str | None = None
    norm: Norm = Norm.RMS
    gated: bool = True
    causal: bool = True
    token_types: bool = False
    learned_positions: bool = False
    first_position: int = 0
    ff_factor: int = 0
    activation: Activation = Activation.SILU
    norm_placement: NormPlacement = NormPlacement.PRE
    qk_norm: QkNorm = QkNorm.NONE
    rope_style: RopeStyle = RopeStyle.HALVES
    window_period: int = 0
    window_first: bool = False
    default_window: int = 0
    no_rope_period: int = 0
    local_rope_base: float | None = None
    scale_embedding: bool = False
    wide_scale_layers: int = 0
    attention_scale: float = 0.0
    attention_softcap: float = 0.0
    output_softcap: float = 0.0
    yarn_truncates: bool = True
    rope_switch: bool = False
    requires_logit_scale: bool = False
    tied_output: bool = False
    experts: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    only_experts: bool = False
    dense_beside_experts: bool = False
    dense_layers: bool = False
    router: Router = Router.SOFTMAX
    expert_weights_norm: bool = True
    recurrent: Mixer | None = None
    recurrent_block: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    attention_period: int = 1
    delta_tiled: bool = False
    attention_gate: bool = False
    windows_differ: bool = False
    widths_differ: bool = False
    last_is_global: bool = False
    shares_kv: bool = False
    requires_kv: bool = False
    keys_as_values: bool = False
    value_norm: bool = False
    per_layer_inputs: bool = False
    several_streams: bool = False
    laurel: bool = False
    sparse_gates: bool = False
    rope_sections: tuple[int, ...] = ()
    predicts_ahead: bool = False
    kv_heads_tell_mixers: bool = False
    hf_keys: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    hf_aliases: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    hf_defaults: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    hf_ignored: tuple[str, ...] = ()
    hf_quantised: tuple[str, ...] = ()
    rope_kinds: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    hf_required: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    blocks: str = USUAL_BLOCKS
    model: Mapping[str, str | None] = field(default_factory=lambda: NOTHING)
    block: Mapping[str, str | None] = field(default_factory=lambda: NOTHING)
    not_first: tuple[str, ...] = ()
    padded: tuple[str, ...] = ()
    biases: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: FUSED_QKV)
    transforms: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    prefixes: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    suffixes: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    skipped: tuple[str, ...] = ()
    buffers: tuple[str, ...] = ()

    def model_tensors(self, tied_output: bool, per_layer: bool | None = None) -> dict[str, str]:
        """Returns the tensors outside the blocks: GGUF name -> checkpoint name.

        Args:
            tied_output: the output matrix is the embedding.
            per_layer: whether layers have inputs of their own; None: if any model of the family.
        """
        merged = {**MODEL_TENSORS, **self.model}
        if self.per_layer_inputs if per_layer is None else per_layer:
            merged |= PER_LAYER_MODEL
        if tied_output:
            merged["output.weight"] = None
        return {ours: theirs for ours, theirs in merged.items() if theirs is not None}

    @property
    def has_shared_expert(self) -> bool:
        """Whether all tokens take one more expert."""
        return "ffn_up_shexp.weight" in self.experts

    @property
    def mixers(self) -> tuple[Mixer, ...]:
        """The kinds of layers that its models have."""
        return (Mixer.ATTENTION, self.recurrent) if self.recurrent else (Mixer.ATTENTION,)

    def block_tensors(
        self,
        experts: bool | None = None,
        mixer: Mixer = Mixer.ATTENTION,
        per_layer: bool | None = None,
    ) -> dict[str, str]:
        """Returns the weights of a block: GGUF name -> checkpoint name, prefixes left off.

        Args:
            experts: whether the model has experts; None where the family's models all have or
                all lack them.
            mixer: what mixes the tokens of the layer.
            per_layer: as in ``model_tensors``.
        """
        merged = {**BLOCK_TENSORS, **self.block, **self.biases}
        if self.per_layer_inputs if per_layer is None else per_layer:
            merged |= PER_LAYER_BLOCK
        if mixer is not Mixer.ATTENTION:
            kept = {ours: theirs for ours, theirs in merged.items() if not is_of_attention(ours)}
            merged = {**kept, **MIXER_TENSORS[mixer], **self.recurrent_block}
        if self.only_experts if experts is None else experts:
            replaced = () if self.dense_beside_experts else _DENSE
            merged = {**merged, **dict.fromkeys(replaced), **self.experts}
        return {ours: theirs for ours, theirs in merged.items() if theirs is not None}
