"""What MLC LLM calls the tensors of each family, and which of the graph's it joins into one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from types import MappingProxyType

from edgeinfer.arch import Architecture, ModelConfig
from edgeinfer.errors import UnsupportedError

# Tensors of the graph, without ".weight", that lie one below the other -> MLC's name.
Joined = Mapping[tuple[str, ...], str]

QKV = ("attn_q", "attn_k", "attn_v")
GATE_UP = ("ffn_gate", "ffn_up")


class Output(Enum):
    """When a family of MLC LLM has an output matrix beside the embedding."""

    UNTIED = auto()
    ALWAYS = auto()
    NEVER = auto()


_MODEL: Joined = {
    ("token_embd",): "model.embed_tokens",
    ("output_norm",): "model.norm",
    ("output",): "lm_head",
}
_BLOCK: Joined = {
    ("attn_norm",): "input_layernorm",
    QKV: "self_attn.qkv_proj",
    ("attn_q_norm",): "self_attn.q_norm",
    ("attn_k_norm",): "self_attn.k_norm",
    ("attn_output",): "self_attn.o_proj",
    ("post_attention_norm",): "post_attention_layernorm",
    ("ffn_norm",): "post_attention_layernorm",
    GATE_UP: "mlp.gate_up_proj",
    ("ffn_down",): "mlp.down_proj",
    ("post_ffw_norm",): "post_feedforward_layernorm",
}
_GEMMA: Joined = {**_BLOCK, ("ffn_norm",): "pre_feedforward_layernorm"}
_APART: Joined = {
    ("attn_q",): "self_attn.q_proj",
    ("attn_k",): "self_attn.k_proj",
    ("attn_v",): "self_attn.v_proj",
}
_PHI3: Joined = {
    ("attn_norm",): "ln",
    QKV: "mixer.qkv_proj",
    ("attn_output",): "mixer.out_proj",
    ("ffn_norm",): "post_attention_layernorm",
    GATE_UP: "mlp.gate_up_proj",
    ("ffn_down",): "mlp.down_proj",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family as MLC LLM knows it.

    Attributes:
        model_type: of mlc-chat-config.json.
        model: names of the tensors outside the blocks.
        block: names of a block's tensors; those the graph lacks are passed over.
        prefix: before all names.
        blocks: before the names of a block, "{}" its number.
        output: when there is an output matrix of its own.
        biases: tensors of the graph that may have one.
    """

    model_type: str
    model: Joined = field(default_factory=lambda: _MODEL)
    block: Joined = field(default_factory=lambda: _BLOCK)
    prefix: str = ""
    blocks: str = "model.layers.{}."
    output: Output = Output.UNTIED
    biases: frozenset[str] = frozenset()


_QWEN: Joined = {**_BLOCK, QKV: "self_attn.c_attn"}

# A class of config.json -> what MLC LLM makes of it.
FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "LlamaForCausalLM": Family(model_type="llama"),
        "MistralForCausalLM": Family(model_type="mistral", output=Output.ALWAYS),
        "Qwen2ForCausalLM": Family(model_type="qwen2", block=_QWEN, biases=frozenset(QKV)),
        "Qwen3ForCausalLM": Family(
            model_type="qwen3", block=_QWEN, biases=frozenset((*QKV, "attn_output"))
        ),
        "Gemma2ForCausalLM": Family(model_type="gemma2", block=_GEMMA, output=Output.NEVER),
        "Gemma3ForCausalLM": Family(
            model_type="gemma3_text",
            block={**{names: name for names, name in _GEMMA.items() if names != QKV}, **_APART},
            prefix="language_model.",
            output=Output.NEVER,
        ),
        "Phi3ForCausalLM": Family(
            model_type="phi3",
            model={
                ("token_embd",): "transformer.embd",
                ("output_norm",): "transformer.norm",
                ("output",): "lm_head",
            },
            block=_PHI3,
            blocks="transformer.h.{}.",
        ),
        "Olmo2ForCausalLM": Family(model_type="olmo2"),
    }
)


def family_of(arch: Architecture, config: ModelConfig) -> Family:
    """Returns what MLC LLM makes of a model.

    Raises:
        UnsupportedError: the family is not exported, or it has experts.
    """
    if config.is_recurrent:
        raise UnsupportedError(
            f"{arch.name} has layers with a running state: only models whose layers all have "
            "attention are exported for MLC LLM",
            hint="--to gguf keeps this model as it is",
        )
    if config.experts:
        raise UnsupportedError(
            f"{arch.name} with experts: only dense models are exported for MLC LLM",
            hint="--to gguf keeps this model as it is",
        )
    name = next((name for name in arch.hf_classes if name in FAMILIES), None)
    if name is None:
        known = ", ".join(sorted(family.model_type for family in FAMILIES.values()))
        raise UnsupportedError(
            f"{arch.hf_classes[0]} ({arch.name}) is not exported for MLC LLM",
            hint=f"exported are {known}; --to gguf keeps this model as it is",
        )
    family = FAMILIES[name]
    if family.output is Output.NEVER and not config.tied_output:
        raise UnsupportedError(
            f"{arch.name} with an output matrix of its own: MLC LLM always takes the embedding's"
        )
    return family
