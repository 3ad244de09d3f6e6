"""Qwen3-Next: gated delta nets, gated attention in each fourth layer, many experts."""

from edgeinfer.arch.config import Mixer, QkNorm
from edgeinfer.arch.spec import EXPERT_TENSORS, SHARED_EXPERT_TENSORS, Architecture

ARCHITECTURE = Architecture(
    name="qwen3next",
    hf_classes=("Qwen3NextForCausalLM",),
    qk_norm=QkNorm.HEAD,
    recurrent=Mixer.DELTA_NET,
    attention_period=4,
    attention_gate=True,
    predicts_ahead=True,
    only_experts=True,
    experts={**EXPERT_TENSORS, **SHARED_EXPERT_TENSORS},
    hf_keys={"ff_width": "moe_intermediate_size", "conv_taps": "linear_conv_kernel_dim"},
    hf_defaults={
        "head_dim": 256,
        "rms_norm_eps": 1e-6,
        "partial_rotary_factor": 0.25,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
        "moe_intermediate_size": 512,
        "shared_expert_intermediate_size": 512,
        "num_experts": 512,
        "num_experts_per_tok": 10,
    },
    block={
        "attn_q_norm.weight": "self_attn.q_norm.weight",
        "attn_k_norm.weight": "self_attn.k_norm.weight",
        "ffn_norm.weight": None,
        "post_attention_norm.weight": "post_attention_layernorm.weight",
    },
    recurrent_block={
        "attn_qkv.weight": "linear_attn.in_proj_qkvz.weight",
        "attn_gate.weight": "linear_attn.in_proj_qkvz.weight",
        "ssm_ba.weight": "linear_attn.in_proj_ba.weight",
    },
    fused={
        "post_attention_norm.weight": ("ffn_norm.weight",),
        "attn_qkv.weight": ("ssm_qkv.weight",),
        "attn_gate.weight": ("ssm_gate.weight",),
    },
    transforms={
        "output_norm.weight": "add_one",
        "attn_norm.weight": "add_one",
        "attn_q_norm.weight": "add_one",
        "attn_k_norm.weight": "add_one",
        "post_attention_norm.weight": "add_one",
        "attn_qkv.weight": "qkv_of_qkvz",
        "attn_gate.weight": "z_of_qkvz",
        "ssm_conv1d.weight": "one_channel",
        "ssm_a": "minus_exp",
        "ffn_gate_inp_shexp.weight": "one_row",
    },
    skipped=("mtp.",),
)
