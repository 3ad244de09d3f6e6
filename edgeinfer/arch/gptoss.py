"""gpt-oss: experts as four-bit floats, a clamped gate, and heads that may attend to nothing.

Every head has a score that its softmax counts beside those of the keys (an attention sink), so
that its weights may add up to less than one. The published checkpoints hold the experts as MXFP4
blocks, others as floats; gate and up are one tensor, their rows by turns.
"""

from edgeinfer.arch.config import Activation
from edgeinfer.arch.spec import FUSED_QKV, Architecture

ARCHITECTURE = Architecture(
    name="gpt-oss",
    hf_classes=("GptOssForCausalLM",),
    activation=Activation.CLAMPED_SWIGLU,
    window_period=2,
    # llama.cpp has no switch for this and rounds the range of YaRN's blend to whole pairs.
    yarn_truncates=False,
    hf_keys={"experts": "num_local_experts"},
    hf_defaults={
        "vocab_size": 201088,
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "num_hidden_layers": 36,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "num_local_experts": 128,
        "num_experts_per_tok": 4,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "sliding_window": 128,
        "rope_theta": 150000.0,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 32.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
            "original_max_position_embeddings": 4096,
        },
    },
    hf_ignored=("hidden_act",),
    hf_required={"attention_bias": True, "swiglu_limit": 7.0, "swiglu_alpha": 1.702},
    hf_quantised=("mxfp4",),
    only_experts=True,
    block={
        "attn_sinks.weight": "self_attn.sinks",
        "ffn_norm.weight": None,
        "post_attention_norm.weight": "post_attention_layernorm.weight",
    },
    fused={**FUSED_QKV, "post_attention_norm.weight": ("ffn_norm.weight",)},
    biases={
        "attn_q.bias": "self_attn.q_proj.bias",
        "attn_k.bias": "self_attn.k_proj.bias",
        "attn_v.bias": "self_attn.v_proj.bias",
        "attn_output.bias": "self_attn.o_proj.bias",
    },
    experts={
        "ffn_gate_inp.weight": "mlp.router.weight",
        "ffn_gate_inp.bias": "mlp.router.bias",
        "ffn_gate_exps.weight": "mlp.experts.gate_up_proj",
        "ffn_gate_exps.bias": "mlp.experts.gate_up_proj_bias",
        "ffn_up_exps.weight": "mlp.experts.gate_up_proj",
        "ffn_up_exps.bias": "mlp.experts.gate_up_proj_bias",
        "ffn_down_exps.weight": "mlp.experts.down_proj",
        "ffn_down_exps.bias": "mlp.experts.down_proj_bias",
    },
    transforms={
        "ffn_gate_exps.weight": "transpose_even",
        "ffn_gate_exps.bias": "even_columns",
        "ffn_up_exps.weight": "transpose_odd",
        "ffn_up_exps.bias": "odd_columns",
        "ffn_down_exps.weight": "transpose",
    },
)
