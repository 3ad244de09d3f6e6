"""Mixtral: Mistral with experts, under Llama's GGUF name."""

from dataclasses import replace

from edgeinfer.arch import mistral

ARCHITECTURE = replace(
    mistral.ARCHITECTURE,
    hf_classes=("MixtralForCausalLM",),
    hf_defaults={
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "rope_theta": 1e6,
    },
    hf_keys={"experts": "num_local_experts"},
    only_experts=True,
    experts={
        "ffn_gate_inp.weight": "block_sparse_moe.gate.weight",
        "ffn_gate_exps.weight": "block_sparse_moe.experts.{}.w1.weight",
        "ffn_up_exps.weight": "block_sparse_moe.experts.{}.w3.weight",
        "ffn_down_exps.weight": "block_sparse_moe.experts.{}.w2.weight",
    },
)
