"""LFM2 with experts in all layers but the first, chosen by sigmoids and a bias."""

from dataclasses import replace

from edgeinfer.arch import lfm2
from edgeinfer.arch.config import Router

ARCHITECTURE = replace(
    lfm2.ARCHITECTURE,
    name="lfm2moe",
    hf_classes=("Lfm2MoeForCausalLM",),
    hf_defaults={
        "vocab_size": 65536,
        "hidden_size": 2048,
        "intermediate_size": 7168,
        "moe_intermediate_size": 1792,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 128000,
        "num_dense_layers": 2,
        "num_experts": 32,
        "num_experts_per_tok": 4,
        "norm_eps": 1e-5,
        "rope_theta": 1e6,
        "conv_L_cache": 3,
    },
    hf_ignored=("block_ff_dim", "block_auto_adjust_ff_dim", "full_attn_idxs"),
    hf_required={"use_expert_bias": True},
    only_experts=True,
    dense_layers=True,
    router=Router.SIGMOID,
    experts={
        "ffn_gate_inp.weight": "feed_forward.gate.weight",
        "exp_probs_b.bias": "feed_forward.expert_bias",
        "ffn_gate_exps.weight": "feed_forward.experts.{}.w1.weight",
        "ffn_up_exps.weight": "feed_forward.experts.{}.w3.weight",
        "ffn_down_exps.weight": "feed_forward.experts.{}.w2.weight",
    },
)
