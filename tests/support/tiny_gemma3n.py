"""What is special about config.json of the tiny models of Gemma 3n."""

from __future__ import annotations

GEMMA3N = {
    "hidden_activation": "gelu_pytorch_tanh",
    "sliding_window": 16,
    "num_hidden_layers": 6,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
    "num_kv_shared_layers": 3,
    "hidden_size_per_layer_input": 32,
    "vocab_size_per_layer_input": 300,
    "laurel_rank": 32,
    "activation_sparsity_pattern": [0.9, 0.9, 0.5, 0.0, 0.0, 0.0],
    "final_logit_softcapping": 1.5,
}
# What llama.cpp takes for granted: 20 layers with keys, the first ten with sparse gates.
AS_LLAMA_CPP_HAS_IT = {
    "num_hidden_layers": 22,
    "layer_types": (["sliding_attention"] * 4 + ["full_attention"]) * 4
    + ["sliding_attention", "full_attention"],
    "num_kv_shared_layers": 2,
    "hidden_size_per_layer_input": 256,
    "vocab_size_per_layer_input": 331,
    "laurel_rank": 64,
    "activation_sparsity_pattern": [0.95] * 10 + [0.0] * 12,
    "final_logit_softcapping": 30.0,
}
# Widths that differ as in a slice of a larger model, and three streams.
OTHER_NUMBERS = {
    "altup_num_inputs": 3,
    "laurel_rank": 24,
    "intermediate_size": [160, 96, 160, 224, 160, 160],
    "hidden_size_per_layer_input": 40,
    "activation_sparsity_pattern": [0.0, 0.8, 0.0, 0.0, 0.0, 0.0],
    "num_kv_shared_layers": 0,
}
