"""Qwen3.5: dense models with Qwen3-Next's layers; of those that see, the text model."""

from dataclasses import replace

from edgeinfer.arch import qwen3next
from edgeinfer.arch.spec import NOTHING

ARCHITECTURE = replace(
    qwen3next.ARCHITECTURE,
    name="qwen35",
    hf_classes=("Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration"),
    delta_tiled=True,
    rope_sections=(11, 11, 10, 0),
    only_experts=False,
    experts=NOTHING,
    hf_keys={"conv_taps": "linear_conv_kernel_dim"},
    recurrent_block={
        "attn_qkv.weight": "linear_attn.in_proj_qkv.weight",
        "attn_gate.weight": "linear_attn.in_proj_z.weight",
        "ssm_beta.weight": "linear_attn.in_proj_b.weight",
        "ssm_alpha.weight": "linear_attn.in_proj_a.weight",
    },
    transforms={
        **{
            name: transform
            for name, transform in qwen3next.ARCHITECTURE.transforms.items()
            if transform == "add_one"
        },
        "attn_qkv.weight": "tiled_qkv",
        "attn_gate.weight": "tiled",
        "ssm_beta.weight": "tiled",
        "ssm_alpha.weight": "tiled",
        "ssm_conv1d.weight": "tiled_channels",
        "ssm_a": "tiled_minus_exp",
        "ssm_dt.bias": "tiled",
        "ssm_out.weight": "tiled_columns",
    },
    prefixes={"model.language_model.": "model."},
    skipped=("mtp.", "model.visual.", "visual."),
)
