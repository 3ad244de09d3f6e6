"""LFM2: short gated convolutions, and attention in some layers."""

from edgeinfer.arch.config import Mixer, QkNorm
from edgeinfer.arch.spec import FUSED_QKV, Architecture

ARCHITECTURE = Architecture(
    name="lfm2",
    hf_classes=("Lfm2ForCausalLM",),
    qk_norm=QkNorm.HEAD,
    tied_output=True,
    recurrent=Mixer.SHORT_CONV,
    kv_heads_tell_mixers=True,
    hf_keys={"norm_eps": "norm_eps"},
    hf_defaults={
        "norm_eps": 1e-5,
        "rope_theta": 1e6,
        "conv_L_cache": 3,
        "block_auto_adjust_ff_dim": True,
    },
    model={
        "output_norm.weight": None,
        "token_embd_norm.weight": "model.embedding_norm.weight",
    },
    block={
        "attn_norm.weight": "operator_norm.weight",
        "attn_output.weight": "self_attn.out_proj.weight",
        "attn_q_norm.weight": "self_attn.q_layernorm.weight",
        "attn_k_norm.weight": "self_attn.k_layernorm.weight",
        "ffn_norm.weight": "ffn_norm.weight",
        "ffn_gate.weight": "feed_forward.w1.weight",
        "ffn_up.weight": "feed_forward.w3.weight",
        "ffn_down.weight": "feed_forward.w2.weight",
    },
    fused={**FUSED_QKV, "token_embd_norm.weight": ("output_norm.weight",)},
    transforms={"shortconv.conv.weight": "one_channel"},
)
