"""Granite 3: Llama with four fixed multipliers."""

from edgeinfer.arch import llama
from edgeinfer.arch.config import RopeStyle
from edgeinfer.arch.spec import Architecture

ARCHITECTURE = Architecture(
    name="granite",
    hf_classes=("GraniteForCausalLM",),
    rope_style=RopeStyle.NEIGHBOURS,
    rope_switch=True,
    requires_logit_scale=True,
    hf_ignored=("sliding_window",),
    hf_defaults={
        "attention_multiplier": 1.0,
        "embedding_multiplier": 1.0,
        "residual_multiplier": 1.0,
        "logits_scaling": 1.0,
    },
    transforms=llama.ARCHITECTURE.transforms,
)
