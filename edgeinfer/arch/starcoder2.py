"""StarCoder2: layer norms, biases everywhere, a feed-forward block without a gate."""

from edgeinfer.arch.config import Activation, Norm
from edgeinfer.arch.spec import Architecture

ARCHITECTURE = Architecture(
    name="starcoder2",
    hf_classes=("Starcoder2ForCausalLM",),
    norm=Norm.LAYER,
    gated=False,
    activation=Activation.GELU_TANH,
    tied_output=True,
    hf_keys={"norm_eps": "norm_epsilon"},
    hf_defaults={
        "vocab_size": 49152,
        "hidden_size": 3072,
        "intermediate_size": 12288,
        "num_hidden_layers": 30,
        "num_attention_heads": 24,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "norm_epsilon": 1e-5,
    },
    model={"output_norm.bias": "model.norm.bias"},
    block={
        "ffn_gate.weight": None,
        "ffn_up.weight": "mlp.c_fc.weight",
        "ffn_down.weight": "mlp.c_proj.weight",
    },
    biases={
        "attn_norm.bias": "input_layernorm.bias",
        "attn_q.bias": "self_attn.q_proj.bias",
        "attn_k.bias": "self_attn.k_proj.bias",
        "attn_v.bias": "self_attn.v_proj.bias",
        "attn_output.bias": "self_attn.o_proj.bias",
        "ffn_norm.bias": "post_attention_layernorm.bias",
        "ffn_up.bias": "mlp.c_fc.bias",
        "ffn_down.bias": "mlp.c_proj.bias",
    },
)
