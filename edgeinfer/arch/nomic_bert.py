"""Nomic Embed: BERT with rotary embeddings, a gate, and no biases but the norms'."""

from edgeinfer.arch.config import Norm, NormPlacement
from edgeinfer.arch.spec import Architecture

ARCHITECTURE = Architecture(
    name="nomic-bert",
    hf_classes=("NomicBertModel",),
    causal=False,
    norm=Norm.LAYER,
    norm_placement=NormPlacement.SUM,
    token_types=True,
    hf_keys={"norm_eps": "layer_norm_eps"},
    hf_ignored=("num_key_value_heads",),
    # Those of the checkpoints that came with a program of their own.
    hf_aliases={
        "n_embd": "hidden_size",
        "n_inner": "intermediate_size",
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "max_trained_positions": "max_position_embeddings",
        "layer_norm_epsilon": "layer_norm_eps",
        "rotary_emb_base": "rope_theta",
    },
    hf_required={
        "prenorm": False,
        "use_rms_norm": False,
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "qkv_proj_bias": False,
        "mlp_fc1_bias": False,
        "mlp_fc2_bias": False,
        "moe_every_n_layers": 0,
    },
    hf_defaults={
        "vocab_size": 30528,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 2048,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "rope_theta": 1000.0,
    },
    blocks="encoder.layers.{}.",
    model={
        "token_embd.weight": "embeddings.word_embeddings.weight",
        "token_types.weight": "embeddings.token_type_embeddings.weight",
        "token_embd_norm.weight": "emb_ln.weight",
        "token_embd_norm.bias": "emb_ln.bias",
        "output_norm.weight": None,
        "output.weight": None,
    },
    block={
        "attn_norm.weight": None,
        "attn_q.weight": None,
        "attn_k.weight": None,
        "attn_v.weight": None,
        "attn_qkv.weight": "attn.Wqkv.weight",
        "attn_output.weight": "attn.out_proj.weight",
        "attn_output_norm.weight": "norm1.weight",
        "ffn_norm.weight": None,
        "ffn_gate.weight": "mlp.fc12.weight",
        "ffn_up.weight": "mlp.fc11.weight",
        "ffn_down.weight": "mlp.fc2.weight",
        "layer_output_norm.weight": "norm2.weight",
    },
    biases={
        "attn_output_norm.bias": "norm1.bias",
        "layer_output_norm.bias": "norm2.bias",
    },
    skipped=("pooler.",),
)
