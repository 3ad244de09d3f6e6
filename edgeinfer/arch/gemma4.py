"""Gemma 4, text: heads of two lengths, layers that share keys and values, inputs of each layer.

Layers without a window have longer heads, of which a quarter of the pairs turns, and may take keys
as values. The last layers may read the keys and values of earlier ones. The smaller models look up
an input of every token for each layer; one has experts beside the feed-forward block. The
multimodal checkpoints hold the same model under other names.
"""

from dataclasses import replace

from edgeinfer.arch import gemma3

ARCHITECTURE = replace(
    gemma3.ARCHITECTURE,
    name="gemma4",
    hf_classes=("Gemma4ForCausalLM", "Gemma4ForConditionalGeneration"),
    window_period=0,  # so that a file always says which layers have it: llama.cpp asks for that
    wide_scale_layers=0,
    attention_scale=1.0,
    windows_differ=True,
    widths_differ=True,
    last_is_global=True,
    shares_kv=True,
    keys_as_values=True,
    value_norm=True,
    per_layer_inputs=True,
    dense_beside_experts=True,
    hf_keys={"experts_used": "top_k_experts"},
    hf_defaults={
        "vocab_size": 262144,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 30,
        "max_position_embeddings": 131072,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "global_head_dim": 512,
        "rms_norm_eps": 1e-6,
        "sliding_window": 512,
        "sliding_window_pattern": 6,
        "hidden_size_per_layer_input": 256,
        "rope_parameters": {
            "full_attention": {
                "rope_type": "proportional",
                "partial_rotary_factor": 0.25,
                "rope_theta": 1000000.0,
            },
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    },
    hf_ignored=("query_pre_attn_scalar", "attn_logit_softcapping"),
    hf_required={"attention_bias": False},
    block={
        **gemma3.ARCHITECTURE.block,
        "layer_output_scale.weight": "layer_scalar",
    },
    experts={
        "ffn_gate_inp.weight": "router.proj.weight",
        "ffn_gate_inp.scale": "router.scale",
        "ffn_gate_exps.weight": "experts.gate_up_proj",
        "ffn_up_exps.weight": "experts.gate_up_proj",
        "ffn_down_exps.weight": "experts.down_proj",
        "ffn_down_exps.scale": "router.per_expert_scale",
        "post_ffw_norm_1.weight": "post_feedforward_layernorm_1.weight",
        "pre_ffw_norm_2.weight": "pre_feedforward_layernorm_2.weight",
        "post_ffw_norm_2.weight": "post_feedforward_layernorm_2.weight",
    },
    fused={
        **gemma3.ARCHITECTURE.fused,
        "ffn_gate_up_exps.weight": ("ffn_gate_exps.weight", "ffn_up_exps.weight"),
    },
    transforms={
        "ffn_gate_exps.weight": "first_half_of_each",
        "ffn_up_exps.weight": "second_half_of_each",
    },
    prefixes={
        "model.language_model.": "model.",
        "language_model.model.": "model.",
        "language_model.lm_head.": "lm_head.",
    },
    skipped=(
        "vision_tower.",
        "audio_tower.",
        "embed_vision.",
        "embed_audio.",
        "model.vision_tower.",
        "model.audio_tower.",
        "model.embed_vision.",
        "model.embed_audio.",
    ),
)
