"""Mistral: Llama's graph and GGUF name, with a sliding window in every layer if there is one."""

from dataclasses import replace

from edgeinfer.arch import llama

ARCHITECTURE = replace(
    llama.ARCHITECTURE,
    hf_classes=("MistralForCausalLM",),
    variant_of="llama",
    hf_ignored=(),
    hf_defaults={"num_key_value_heads": 8, "sliding_window": 4096},
)
