"""Llama 2 and 3, TinyLlama, SmolLM2; the GGUF name is Mistral's and Mixtral's as well."""

from edgeinfer.arch.config import RopeStyle
from edgeinfer.arch.spec import EXPERT_TENSORS, Architecture

ARCHITECTURE = Architecture(
    name="llama",
    hf_classes=("LlamaForCausalLM",),
    rope_style=RopeStyle.NEIGHBOURS,
    hf_ignored=("sliding_window",),
    experts=EXPERT_TENSORS,
    transforms={
        "attn_q.weight": "neighbour_pairs",
        "attn_k.weight": "neighbour_pairs",
        "attn_q.bias": "neighbour_pairs",
        "attn_k.bias": "neighbour_pairs",
    },
)
