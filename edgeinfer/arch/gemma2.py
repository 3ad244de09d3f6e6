"""Gemma 2: norms on both sides, capped scores, a window in every other layer."""

from edgeinfer.arch.config import Activation, NormPlacement
from edgeinfer.arch.spec import Architecture

ARCHITECTURE = Architecture(
    name="gemma2",
    hf_classes=("Gemma2ForCausalLM",),
    activation=Activation.GELU_TANH,
    norm_placement=NormPlacement.SANDWICH,
    window_period=2,
    default_window=4096,
    scale_embedding=True,
    wide_scale_layers=46,
    attention_softcap=50.0,
    output_softcap=30.0,
    tied_output=True,
    hf_defaults={
        "num_key_value_heads": 4,
        "head_dim": 256,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    block={
        "post_attention_norm.weight": "post_attention_layernorm.weight",
        "ffn_norm.weight": "pre_feedforward_layernorm.weight",
        "post_ffw_norm.weight": "post_feedforward_layernorm.weight",
    },
    transforms={
        "output_norm.weight": "add_one",
        "attn_norm.weight": "add_one",
        "post_attention_norm.weight": "add_one",
        "ffn_norm.weight": "add_one",
        "post_ffw_norm.weight": "add_one",
    },
)
