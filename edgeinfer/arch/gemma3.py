"""Gemma 3, text: Gemma 2's norms, heads normed instead of capped, five local layers to a global.

Local layers have their own, unscaled rotary base. The multimodal checkpoints hold the same
model under other names, beside a vision tower.
"""

from dataclasses import replace

from edgeinfer.arch import gemma2
from edgeinfer.arch.config import QkNorm

ARCHITECTURE = replace(
    gemma2.ARCHITECTURE,
    name="gemma3",
    hf_classes=("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
    qk_norm=QkNorm.HEAD,
    window_period=6,
    default_window=0,
    local_rope_base=10000.0,
    wide_scale_layers=62,
    attention_softcap=0.0,
    output_softcap=0.0,
    hf_defaults={
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "rms_norm_eps": 1e-6,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
    },
    block={
        **gemma2.ARCHITECTURE.block,
        "attn_q_norm.weight": "self_attn.q_norm.weight",
        "attn_k_norm.weight": "self_attn.k_norm.weight",
    },
    transforms={
        **gemma2.ARCHITECTURE.transforms,
        "attn_q_norm.weight": "add_one",
        "attn_k_norm.weight": "add_one",
    },
    prefixes={
        "language_model.model.": "model.",
        "model.language_model.": "model.",
        "language_model.lm_head.": "lm_head.",
    },
    skipped=(
        "vision_tower.",
        "model.vision_tower.",
        "multi_modal_projector.",
        "model.multi_modal_projector.",
    ),
)
