"""Qwen2 and Qwen2.5: biases on queries, keys and values."""

from edgeinfer.arch.spec import Architecture

ARCHITECTURE = Architecture(
    name="qwen2",
    hf_classes=("Qwen2ForCausalLM",),
    window_period=1,
    hf_defaults={"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28},
    biases={
        "attn_q.bias": "self_attn.q_proj.bias",
        "attn_k.bias": "self_attn.k_proj.bias",
        "attn_v.bias": "self_attn.v_proj.bias",
    },
)
