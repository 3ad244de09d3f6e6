"""ModernBERT: norms before blocks and without biases, windows on both sides, gates."""

from edgeinfer.arch.config import Activation, Norm
from edgeinfer.arch.spec import FUSED_QKV, Architecture

ARCHITECTURE = Architecture(
    name="modern-bert",
    hf_classes=("ModernBertModel", "ModernBertForMaskedLM"),
    causal=False,
    norm=Norm.LAYER,
    activation=Activation.GELU_ERF,
    window_period=3,
    window_first=True,
    local_rope_base=10000.0,
    hf_keys={"norm_eps": "norm_eps", "window": "local_attention"},
    hf_ignored=("num_key_value_heads", "head_dim"),
    hf_aliases={
        "global_attn_every_n_layers": "sliding_window_pattern",
        "global_rope_theta": "rope_theta",
        "local_rope_theta": "rope_local_base_freq",
    },
    hf_defaults={
        "vocab_size": 50368,
        "hidden_size": 768,
        "intermediate_size": 1152,
        "num_hidden_layers": 22,
        "num_attention_heads": 12,
        "max_position_embeddings": 8192,
        "local_attention": 128,
        "norm_eps": 1e-5,
        "rope_theta": 160000.0,
        "hidden_activation": "gelu",
    },
    hf_required={"norm_bias": False, "attention_bias": False, "mlp_bias": False},
    blocks="layers.{}.",
    model={
        "token_embd.weight": "embeddings.tok_embeddings.weight",
        "token_embd_norm.weight": "embeddings.norm.weight",
        "output_norm.weight": "final_norm.weight",
        "output.weight": None,
    },
    block={
        "attn_norm.weight": "attn_norm.weight",
        "attn_q.weight": None,
        "attn_k.weight": None,
        "attn_v.weight": None,
        "attn_qkv.weight": "attn.Wqkv.weight",
        "attn_output.weight": "attn.Wo.weight",
        "ffn_norm.weight": "mlp_norm.weight",
        "ffn_gate.weight": None,
        "ffn_up.weight": "mlp.Wi.weight",
        "ffn_down.weight": "mlp.Wo.weight",
    },
    not_first=("attn_norm.weight",),
    fused={**FUSED_QKV, "ffn_up.weight": ("ffn_gate.weight", "ffn_up.weight")},
    prefixes={"model.": ""},
    skipped=("head.", "decoder."),
)
