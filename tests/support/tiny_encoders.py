"""What is special about config.json of the tiny models that read texts both ways."""

from __future__ import annotations

BERT = {
    "num_attention_heads": 2,
    "layer_norm_eps": 1e-12,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
}
ROBERTA = {
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "max_position_embeddings": 258,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
}
MODERN_BERT = {
    "num_attention_heads": 2,
    "local_attention": 16,
    "norm_eps": 1e-5,
    "global_rope_theta": 1.6e5,
    "local_rope_theta": 1e4,
}
