"""OLMo 2: norms after each half of a block, and over the whole query and key."""

from edgeinfer.arch.config import NormPlacement, QkNorm
from edgeinfer.arch.spec import Architecture

ARCHITECTURE = Architecture(
    name="olmo2",
    hf_classes=("Olmo2ForCausalLM",),
    norm_placement=NormPlacement.POST,
    qk_norm=QkNorm.FULL,
    window_period=4,
    hf_ignored=("sliding_window",),
    block={
        "attn_norm.weight": None,
        "ffn_norm.weight": None,
        "attn_q_norm.weight": "self_attn.q_norm.weight",
        "attn_k_norm.weight": "self_attn.k_norm.weight",
        "post_attention_norm.weight": "post_attention_layernorm.weight",
        "post_ffw_norm.weight": "post_feedforward_layernorm.weight",
    },
)
