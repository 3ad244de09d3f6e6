"""Phi-3, Phi-3.5 and Phi-4 mini: queries, keys and values in one tensor, gate and up in another."""

from edgeinfer.arch.spec import FUSED_QKV, Architecture

ARCHITECTURE = Architecture(
    name="phi3",
    hf_classes=("Phi3ForCausalLM",),
    hf_defaults={"original_max_position_embeddings": 4096},
    rope_kinds={"yarn": "longrope"},  # what the first release called it
    block={
        "attn_q.weight": None,
        "attn_k.weight": None,
        "attn_v.weight": None,
        "attn_qkv.weight": "self_attn.qkv_proj.weight",
        "ffn_gate.weight": None,
        "ffn_up.weight": "mlp.gate_up_proj.weight",
    },
    fused={**FUSED_QKV, "ffn_up.weight": ("ffn_gate.weight", "ffn_up.weight")},
)
