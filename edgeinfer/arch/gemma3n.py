"""Gemma 3n, text: Gemma 4's inputs of layers and shared keys and values, and several streams.

The residual stream is several, of which a layer computes one and predicts the others (AltUp); a
product of two narrow matrices runs beside attention (LAuReL); the first layers keep only the
largest gates. The multimodal checkpoints hold the same model under other names.
"""

from dataclasses import replace

from edgeinfer.arch import gemma3, gemma4

ARCHITECTURE = replace(
    gemma3.ARCHITECTURE,
    name="gemma3n",
    hf_classes=("Gemma3nForCausalLM", "Gemma3nForConditionalGeneration"),
    window_period=5,
    wide_scale_layers=0,
    attention_scale=1.0,
    output_softcap=30.0,
    widths_differ=True,
    shares_kv=True,
    requires_kv=True,
    value_norm=True,
    per_layer_inputs=True,
    several_streams=True,
    laurel=True,
    sparse_gates=True,
    hf_defaults={
        "vocab_size": 262400,
        "vocab_size_per_layer_input": 262144,
        "hidden_size": 2048,
        "hidden_size_per_layer_input": 256,
        "intermediate_size": 16384,
        "num_hidden_layers": 35,
        "max_position_embeddings": 32768,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "sliding_window": 512,
        "final_logit_softcapping": 30.0,
        "num_kv_shared_layers": 15,
        "altup_num_inputs": 4,
        "laurel_rank": 64,
    },
    hf_ignored=("query_pre_attn_scalar", "attn_logit_softcapping", "sliding_window_pattern"),
    hf_required={"attention_bias": False, "altup_active_idx": 0, "altup_correct_scale": True},
    model={
        "altup_proj.weight": "model.altup_projections.{}.weight",
        "altup_unembd_proj.weight": "model.altup_unembed_projections.{}.weight",
    },
    block={
        **gemma3.ARCHITECTURE.block,
        "altup_router.weight": "altup.modality_router.weight",
        "altup_router_norm.weight": "altup.router_norm.weight",
        "altup_predict_coef.weight": "altup.prediction_coefs.weight",
        "altup_correct_coef.weight": "altup.correction_coefs.weight",
        "altup_correct_scale.weight": "altup.correct_output_scale",
        "laurel_l.weight": "laurel.linear_left.weight",
        "laurel_r.weight": "laurel.linear_right.weight",
        "laurel_post_norm.weight": "laurel.post_laurel_norm.weight",
    },
    padded=("per_layer_token_embd.weight",),
    transforms={},
    prefixes=gemma4.ARCHITECTURE.prefixes,
    skipped=gemma4.ARCHITECTURE.skipped,
)
