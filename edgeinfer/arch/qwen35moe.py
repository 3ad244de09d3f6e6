"""Qwen3.5 with experts; of those that see, the text model."""

from dataclasses import replace

from edgeinfer.arch import qwen3next, qwen35
from edgeinfer.arch.spec import EXPERT_TENSORS, SHARED_EXPERT_TENSORS

ARCHITECTURE = replace(
    qwen35.ARCHITECTURE,
    name="qwen35moe",
    hf_classes=("Qwen3_5MoeForCausalLM", "Qwen3_5MoeForConditionalGeneration"),
    only_experts=True,
    hf_keys=qwen3next.ARCHITECTURE.hf_keys,
    hf_defaults={
        **qwen3next.ARCHITECTURE.hf_defaults,
        "num_experts": 256,
        "num_experts_per_tok": 8,
    },
    experts={
        **EXPERT_TENSORS,
        **SHARED_EXPERT_TENSORS,
        # Its checkpoints stack them, gates and ups as one.
        "ffn_gate_exps.weight": "mlp.experts.gate_up_proj",
        "ffn_up_exps.weight": "mlp.experts.gate_up_proj",
        "ffn_down_exps.weight": "mlp.experts.down_proj",
    },
    transforms={
        **qwen35.ARCHITECTURE.transforms,
        "ffn_gate_exps.weight": "first_half_of_each",
        "ffn_up_exps.weight": "second_half_of_each",
        "ffn_gate_inp_shexp.weight": "one_row",
    },
)
