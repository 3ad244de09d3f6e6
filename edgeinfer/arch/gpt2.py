"""GPT-2: a table of positions in place of rotary embeddings, matrices stored (inputs, outputs)."""

from edgeinfer.arch.config import Activation, Norm
from edgeinfer.arch.spec import Architecture

ARCHITECTURE = Architecture(
    name="gpt2",
    hf_classes=("GPT2LMHeadModel",),
    norm=Norm.LAYER,
    gated=False,
    activation=Activation.GELU_TANH,
    learned_positions=True,
    no_rope_period=1,
    ff_factor=4,
    tied_output=True,
    hf_keys={
        "context": "n_positions",
        "layers": "n_layer",
        "width": "n_embd",
        "heads": "n_head",
        "ff_width": "n_inner",
        "norm_eps": "layer_norm_epsilon",
    },
    hf_defaults={
        "vocab_size": 50257,
        "n_positions": 1024,
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "layer_norm_epsilon": 1e-5,
    },
    hf_ignored=("num_key_value_heads", "head_dim"),
    hf_required={
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    },
    blocks="transformer.h.{}.",
    model={
        "token_embd.weight": "transformer.wte.weight",
        "position_embd.weight": "transformer.wpe.weight",
        "output_norm.weight": "transformer.ln_f.weight",
        "output_norm.bias": "transformer.ln_f.bias",
    },
    block={
        "attn_norm.weight": "ln_1.weight",
        "attn_q.weight": None,
        "attn_k.weight": None,
        "attn_v.weight": None,
        "attn_qkv.weight": "attn.c_attn.weight",
        "attn_output.weight": "attn.c_proj.weight",
        "ffn_norm.weight": "ln_2.weight",
        "ffn_gate.weight": None,
        "ffn_up.weight": "mlp.c_fc.weight",
        "ffn_down.weight": "mlp.c_proj.weight",
    },
    biases={
        "attn_norm.bias": "ln_1.bias",
        "attn_qkv.bias": "attn.c_attn.bias",
        "attn_output.bias": "attn.c_proj.bias",
        "ffn_norm.bias": "ln_2.bias",
        "ffn_up.bias": "mlp.c_fc.bias",
        "ffn_down.bias": "mlp.c_proj.bias",
    },
    transforms={
        "attn_qkv.weight": "transpose",
        "attn_output.weight": "transpose",
        "ffn_up.weight": "transpose",
        "ffn_down.weight": "transpose",
    },
    # As published by OpenAI, the names lack their first part.
    prefixes={
        "h.": "transformer.h.",
        "wte.": "transformer.wte.",
        "wpe.": "transformer.wpe.",
        "ln_f.": "transformer.ln_f.",
    },
    # The causal mask, which old versions of transformers saved.
    buffers=(".attn.bias", ".attn.masked_bias"),
)
