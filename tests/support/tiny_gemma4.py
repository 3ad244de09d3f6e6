"""What is special about config.json of the tiny models of Gemma 4."""

from __future__ import annotations

GEMMA4 = {
    "hidden_activation": "gelu_pytorch_tanh",
    "sliding_window": 16,
    "global_head_dim": 64,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
    "num_hidden_layers": 6,
    "hidden_size_per_layer_input": 0,
    "final_logit_softcapping": 1.5,
}
# As its smaller models: inputs of each layer, and the last layers without keys and values.
GEMMA4_SMALL = {
    **GEMMA4,
    "hidden_size_per_layer_input": 32,
    "vocab_size_per_layer_input": 331,
    "num_kv_shared_layers": 3,
    "use_double_wide_mlp": True,
}
KEYS_AS_VALUES = {"attention_k_eq_v": True, "num_global_key_value_heads": 1}
BESIDE = {
    "enable_moe_block": True,
    "num_experts": 8,
    "top_k_experts": 3,
    "moe_intermediate_size": 96,
}
