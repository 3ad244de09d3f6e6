"""Qwen3 with experts."""

from dataclasses import replace

from edgeinfer.arch import qwen3
from edgeinfer.arch.spec import EXPERT_TENSORS

ARCHITECTURE = replace(
    qwen3.ARCHITECTURE,
    name="qwen3moe",
    hf_classes=("Qwen3MoeForCausalLM",),
    hf_defaults={
        "use_sliding_window": False,
        "sliding_window": 4096,
        "moe_intermediate_size": 768,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "norm_topk_prob": False,
    },
    window_period=0,
    hf_keys={"ff_width": "moe_intermediate_size"},
    only_experts=True,
    experts=EXPERT_TENSORS,
)
