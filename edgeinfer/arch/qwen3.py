"""Qwen3 (dense): an RMS norm on each head's query and key."""

from edgeinfer.arch.config import QkNorm
from edgeinfer.arch.spec import Architecture

ARCHITECTURE = Architecture(
    name="qwen3",
    hf_classes=("Qwen3ForCausalLM",),
    qk_norm=QkNorm.HEAD,
    window_period=1,
    hf_defaults={
        "head_dim": 128,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "max_window_layers": 28,
    },
    block={
        "attn_q_norm.weight": "self_attn.q_norm.weight",
        "attn_k_norm.weight": "self_attn.k_norm.weight",
    },
)
