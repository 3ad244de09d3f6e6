"""SmolLM3: Llama with no rotary embedding in every fourth layer."""

from edgeinfer.arch import llama
from edgeinfer.arch.config import RopeStyle
from edgeinfer.arch.spec import Architecture

ARCHITECTURE = Architecture(
    name="smollm3",
    hf_classes=("SmolLM3ForCausalLM",),
    rope_style=RopeStyle.NEIGHBOURS,
    no_rope_period=4,
    window_period=1,
    tied_output=True,
    hf_defaults={
        "num_key_value_heads": 4,
        "rope_theta": 2000000.0,
        "use_sliding_window": False,
    },
    transforms=llama.ARCHITECTURE.transforms,
)
