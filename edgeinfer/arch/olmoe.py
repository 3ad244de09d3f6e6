"""OLMoE: many small experts; an RMS norm over all queries, another over all keys."""

from edgeinfer.arch.config import QkNorm
from edgeinfer.arch.spec import EXPERT_TENSORS, Architecture

ARCHITECTURE = Architecture(
    name="olmoe",
    hf_classes=("OlmoeForCausalLM",),
    qk_norm=QkNorm.FULL,
    hf_defaults={"num_experts": 64, "num_experts_per_tok": 8, "norm_topk_prob": False},
    only_experts=True,
    experts=EXPERT_TENSORS,
    expert_weights_norm=False,
    block={
        "attn_q_norm.weight": "self_attn.q_norm.weight",
        "attn_k_norm.weight": "self_attn.k_norm.weight",
    },
)
