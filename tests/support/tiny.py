"""Tiny random checkpoints of every family, in the shapes that go wrong.

Written with numpy and safetensors alone and the same bytes every time, so that a golden
file made by transformers elsewhere holds for them. transformers and llama.cpp open them.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeinfer.arch import Architecture, by_hf_class, config_from_hf
from edgeinfer.arch.config import Activation
from edgeinfer.arch.tensors import checkpoint_names, file_shape, split_name
from edgeinfer.arch.transforms import transform_of
from support.tiny_encoders import BERT, MODERN_BERT, ROBERTA
from support.tiny_gemma3n import AS_LLAMA_CPP_HAS_IT, GEMMA3N, OTHER_NUMBERS
from support.tiny_gemma4 import BESIDE, GEMMA4, GEMMA4_SMALL, KEYS_AS_VALUES
from support.tiny_tokenizer import write_tokenizer, write_unigram, write_wordpiece

CONTEXT = 128  # what tests open the models with
TOKENS = 64  # how many tokens tests run


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiny:
    """A tiny model.

    Attributes:
        name: of the family's module and what is special.
        config: its config.json.
        in_llama_cpp: llama.cpp's graph can express it.
    """

    name: str
    config: Mapping[str, Any] = field(repr=False)
    in_llama_cpp: bool = True

    def __str__(self) -> str:
        return self.name

    @property
    def arch(self) -> Architecture:
        return by_hf_class(self.config["architectures"][0])

    @property
    def has_experts(self) -> bool:
        """Whether its feed-forward blocks are experts to choose from."""
        return config_from_hf(self.config).experts > 0

    @property
    def tokens(self) -> list[int]:
        """A text of TOKENS random tokens."""
        rng = np.random.Generator(np.random.PCG64(_seed(self.name + "/tokens")))
        return [int(t) for t in rng.integers(0, self.config["vocab_size"], TOKENS)]

    def tensors(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Yields the checkpoint's tensors under their names in transformers."""
        arch, config = self.arch, config_from_hf(self.config)
        for ours, name in checkpoint_names(arch, config, self.config).items():
            kind = split_name(ours)[1]
            shape = transform_of(arch, kind).stored(config, file_shape(arch, config, ours))
            if "{}" in name:
                for part in map(name.format, range(shape[0])):
                    yield part, self._random(part, kind, shape[1:])
            else:
                if ours in arch.padded:
                    shape = (self.config["vocab_size_per_layer_input"], *shape[1:])
                yield name, self._random(name, kind, shape)

    def _random(self, name: str, kind: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Draws weights that keep activations near 1, attention sharp and norms uneven.

        They are rounded to eight bits of mantissa: an f16 or bf16 file holds the same.
        """
        rng = np.random.Generator(np.random.PCG64(_seed(f"{self.name}/{name}")))
        values = rng.standard_normal(shape, dtype=np.float32)
        if kind.endswith(_AROUND_ONE):
            values = 0.2 * values + (0 if self.arch.transforms.get(kind) == "add_one" else 1)
            if self.arch.attention_scale and kind == "attn_q_norm.weight":
                values = 1.5 * values / np.sqrt(shape[-1])  # nothing else scales q.k
        elif kind == "ssm_a":
            values = values - 2  # they remember for a while
        elif kind.endswith(".bias"):
            values = 0.3 * values
        elif kind.startswith("attn_q") or kind.startswith("attn_k"):
            values = values * 1.5 / np.sqrt(shape[-1])
        elif kind in ("token_embd.weight", "position_embd.weight", "token_types.weight"):
            # Small, so that the blocks and not the token itself decide the logits.
            values = 0.3 * values / config_from_hf(self.config).embedding_scale
        elif self.arch.activation is Activation.CLAMPED_SWIGLU and "_exps" in kind:
            values = 3 * values / np.sqrt(shape[-1])  # so that some are beyond the limits
        else:
            values = values / np.sqrt(shape[-1])
        bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
        return ((bits + 0x8000) & np.uint32(0xFFFF0000)).view(np.float32)


# Norms, and factors.
_AROUND_ONE = ("norm.weight", "norm_1.weight", "norm_2.weight", "scale.weight", ".scale")


def _seed(name: str) -> int:
    return zlib.crc32(name.encode())


_BASE: Mapping[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
    "vocab_size": 331,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "torch_dtype": "float32",
}


# The same in GPT-2's keys, which transformers reads only where those above are not there.
_GPT2: Mapping[str, Any] = {
    "n_layer": 3,
    "n_positions": 1024,
    "vocab_size": 331,
    "activation_function": "gelu_new",
    "torch_dtype": "float32",
}


def _heads(heads: int, kv_heads: int, head_dim: int, width: int | None = None) -> dict[str, Any]:
    """A shape; the width is heads * head_dim unless it is given."""
    shape = {"num_attention_heads": heads, "num_key_value_heads": kv_heads}
    if width is None:
        return {**shape, "hidden_size": heads * head_dim}
    return {**shape, "hidden_size": width, "head_dim": head_dim}


def _rope(kind: str, **settings: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **settings}}


def _longrope(lanes: int, original: int) -> dict[str, Any]:
    pairs = lanes // 2
    return {
        "original_max_position_embeddings": original,
        "rope_scaling": {
            "type": "longrope",
            "long_factor": [1.0 + 0.25 * i for i in range(pairs)],
            "short_factor": [1.0 + 0.03125 * i for i in range(pairs)],
        },
    }


_LLAMA3 = _rope(
    "llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=64,
)
_YARN = _rope("yarn", factor=4.0, original_max_position_embeddings=256)
_YARN_LOUDER = _rope(
    "yarn", factor=4.0, original_max_position_embeddings=256, attention_factor=1.25
)
# llama.cpp takes the betas from its command line for most families, not from the file.
_YARN_BETAS = _rope(
    "yarn", factor=4.0, original_max_position_embeddings=256, beta_fast=16.0, beta_slow=2.0
)
_TIED = {"tie_word_embeddings": True}
_UNTIED = {"tie_word_embeddings": False}
_BIASES = {"attention_bias": True, "mlp_bias": True}
_EXPERTS = {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 96}
_ONE_EXPERT = {"num_experts_per_tok": 1}
_SIX_LAYERS = {"num_hidden_layers": 6}
_GEMMA = {"hidden_activation": "gelu_pytorch_tanh", "sliding_window": 16}
_GELU = {"hidden_act": "gelu_pytorch_tanh"}
_CAPS = {"attn_logit_softcapping": 3.0, "final_logit_softcapping": 1.5}  # low, so they bite
_LFM2 = {
    "norm_eps": 1e-5,
    "num_hidden_layers": 5,
    "layer_types": ["conv", "conv", "full_attention", "conv", "full_attention"],
}
# As the first checkpoints said it: which layers have attention, and the width before rounding.
_FOUR_TAPS = {
    "conv_L_cache": 4,
    "layer_types": None,
    "full_attn_idxs": [0, 3],
    "block_ff_dim": 300,
    "block_multiple_of": 32,
    "tie_embedding": False,
}
_SCALED = {"num_dense_layers": 1, "routed_scaling_factor": 2.5, **_ONE_EXPERT, **_UNTIED}
_DELTA = {
    "num_hidden_layers": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "rms_norm_eps": 1e-6,  # llama.cpp takes it for the length of keys, too
}
_SHARED = {"shared_expert_intermediate_size": 96}
_THREE_HEADS_A_KEY = {
    "linear_num_value_heads": 6,
    "linear_conv_kernel_dim": 3,
    "layer_types": ["linear_attention", "full_attention"] * 2,
}
_THREE_HEADS = {"num_attention_heads": 3}
_FOUR_HEADS_OF_32 = {"num_attention_heads": 4, "hidden_size": 128}
_ALL_WINDOWS = {"layer_types": ["sliding_attention"] * 3}
_GPT_OSS = {
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
    "intermediate_size": 96,
    "sliding_window": 16,
    "num_hidden_layers": 4,
}
_GPT_OSS_YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 128,
    "truncate": False,
}
_MULTIPLIERS = {
    "attention_multiplier": 0.09375,
    "embedding_multiplier": 6.0,
    "residual_multiplier": 0.375,
    "logits_scaling": 4.0,
}


def _tiny(
    name: str,
    *parts: Mapping[str, Any],
    base: Mapping[str, Any] = _BASE,
    in_llama_cpp: bool = True,
) -> Tiny:
    config = {**base, "architectures": [_CLASSES[name.partition("-")[0]]]}
    for part in parts:
        config |= part
    return Tiny(name=name, config=config, in_llama_cpp=in_llama_cpp)


_CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3": "Gemma3ForCausalLM",
    "gemma4": "Gemma4ForCausalLM",
    "gemma3n": "Gemma3nForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen3moe": "Qwen3MoeForCausalLM",
    "olmoe": "OlmoeForCausalLM",
    "granite": "GraniteForCausalLM",
    "starcoder2": "Starcoder2ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "lfm2": "Lfm2ForCausalLM",
    "lfm2moe": "Lfm2MoeForCausalLM",
    "qwen3next": "Qwen3NextForCausalLM",
    "qwen35": "Qwen3_5ForCausalLM",
    "qwen35moe": "Qwen3_5MoeForCausalLM",
    "bert": "BertModel",
    "nomic_bert": "NomicBertModel",
    "modernbert": "ModernBertModel",
    "xlm_roberta": "XLMRobertaModel",
    "gptoss": "GptOssForCausalLM",
}

MODELS: tuple[Tiny, ...] = (
    _tiny("llama-gqa64-tied", _heads(4, 2, 64), _TIED),
    _tiny("llama-mha128-untied", _heads(2, 2, 128), _UNTIED, {"vocab_size": 320}),
    _tiny("llama-mqa96-llama3", _heads(3, 1, 96), _LLAMA3),
    _tiny("llama-gqa64-linear", _heads(4, 2, 64, 192), _rope("linear", factor=4.0)),
    _tiny("llama-gqa64-yarn", _heads(2, 1, 64), _YARN_LOUDER),
    _tiny("llama-gqa64-yarn-betas", _heads(2, 1, 64), _YARN_BETAS, in_llama_cpp=False),
    _tiny("llama-gqa64-longrope", _heads(2, 1, 64), _longrope(64, 32)),
    _tiny("llama-mha64-biases", _heads(4, 4, 64), _BIASES),
    _tiny("mistral-gqa128", _heads(4, 2, 128, 192), {"sliding_window": None}),
    _tiny("mistral-gqa64-window", _heads(4, 2, 64), {"sliding_window": 16}, in_llama_cpp=False),
    _tiny("qwen2-gqa64-tied", _heads(4, 2, 64), _TIED, {"rope_theta": 1e6}),
    _tiny("qwen2-gqa128-yarn", _heads(2, 1, 128), _YARN, _UNTIED),
    _tiny(
        "qwen2-mqa64-window",
        _heads(4, 1, 64),
        {"use_sliding_window": True, "max_window_layers": 1, "sliding_window": 16},
        in_llama_cpp=False,
    ),
    _tiny("qwen3-gqa128-tied", _heads(4, 2, 128, 192), _TIED, {"rope_theta": 1e6}),
    _tiny("qwen3-mha64-yarn", _heads(4, 4, 64, 160), _YARN, _UNTIED),
    _tiny("gemma2-gqa64", _heads(4, 2, 64, 192), _GEMMA, _CAPS, {"query_pre_attn_scalar": 64}),
    _tiny(
        "gemma2-mqa128-scale",
        _heads(4, 1, 128, 192),
        _GEMMA,
        _CAPS,
        {"query_pre_attn_scalar": 48, "num_hidden_layers": 4},
        in_llama_cpp=False,
    ),
    _tiny(
        "gemma3-gqa64",
        _heads(4, 2, 64, 128),
        _GEMMA,
        _SIX_LAYERS,
        {"query_pre_attn_scalar": 64},
    ),
    _tiny(
        "gemma3-mha96-linear",
        _heads(2, 2, 96, 160),
        _GEMMA,
        _SIX_LAYERS,
        {
            "query_pre_attn_scalar": 96,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            "rope_theta": 1e6,
            "rope_local_base_freq": 1e4,
            "layer_types": ["sliding_attention", "full_attention"] * 3,
        },
    ),
    _tiny("gemma4-gqa32-experts", _heads(4, 2, 32, 128), GEMMA4, KEYS_AS_VALUES, BESIDE),
    _tiny("gemma4-mqa32-shared", _heads(4, 1, 32, 160), GEMMA4_SMALL),
    _tiny("gemma4-gqa32-keys-as-values", _heads(4, 2, 32, 160), GEMMA4, KEYS_AS_VALUES, _UNTIED),
    _tiny("gemma3n-mqa32-shared", _heads(4, 1, 32, 160), GEMMA3N, in_llama_cpp=False),
    _tiny(
        "gemma3n-gqa64-other-numbers",
        _heads(4, 2, 64, 192),
        GEMMA3N,
        OTHER_NUMBERS,
        _UNTIED,
        in_llama_cpp=False,
    ),
    _tiny("phi3-mha96", _heads(2, 2, 96), {"sliding_window": None}),
    _tiny(
        "phi3-gqa64-window",
        _heads(4, 2, 64),
        {"partial_rotary_factor": 0.75, "sliding_window": 16},
        in_llama_cpp=False,
    ),
    _tiny("phi3-gqa96-shortrope", _heads(2, 1, 96), _longrope(96, 256)),
    _tiny(
        "phi3-gqa128-longrope-tied",
        _heads(2, 1, 128),
        _longrope(96, 32),
        _TIED,
        {"partial_rotary_factor": 0.75},
    ),
    _tiny("smollm3-gqa64-tied", _heads(4, 2, 64), _SIX_LAYERS),
    _tiny("smollm3-gqa128-yarn", _heads(2, 1, 128), _YARN, _UNTIED, _SIX_LAYERS),
    _tiny("olmo2-mha64", _heads(3, 3, 64)),
    _tiny("olmo2-gqa128-yarn", _heads(2, 1, 128), _YARN),
    _tiny("granite-gqa64-tied", _heads(4, 2, 64), _MULTIPLIERS, _TIED),
    _tiny("granite-mha96-biases", _heads(2, 2, 96), _MULTIPLIERS, _UNTIED, _BIASES),
    _tiny("mixtral-gqa64", _heads(4, 2, 64), {"num_local_experts": 4, "num_experts_per_tok": 2}),
    _tiny("mixtral-one-of-three", _heads(2, 1, 64), {"num_local_experts": 3}, _ONE_EXPERT, _TIED),
    _tiny("qwen3moe-gqa128", _heads(4, 2, 128, 192), _EXPERTS, {"norm_topk_prob": True}),
    _tiny(
        "qwen3moe-mha64-yarn",
        _heads(4, 4, 64, 160),
        _EXPERTS,
        _ONE_EXPERT,
        _YARN,
        {"norm_topk_prob": True},
    ),
    _tiny("starcoder2-gqa64", _heads(4, 2, 64), {"norm_epsilon": 1e-5}, _GELU),
    _tiny("starcoder2-mha96-untied", _heads(2, 2, 96), _UNTIED, _GELU, {"norm_epsilon": 1e-3}),
    _tiny(
        "starcoder2-gqa64-window",
        _heads(4, 1, 64),
        {"sliding_window": 16},
        _GELU,
        in_llama_cpp=False,
    ),
    _tiny("gpt2-mha64", {"n_embd": 192, "n_head": 3}, base=_GPT2),
    _tiny(
        "gpt2-mha96-narrow",
        {"n_embd": 192, "n_head": 2, "n_inner": 160, "layer_norm_epsilon": 1e-3},
        base=_GPT2,
    ),
    _tiny("lfm2-gqa64", _heads(4, 2, 64), _LFM2),
    _tiny("lfm2-mha32-four-taps", _heads(4, 4, 32), _LFM2, _FOUR_TAPS),
    _tiny("lfm2moe-gqa64", _heads(4, 2, 64), _LFM2, _EXPERTS),
    _tiny("lfm2moe-mha32-all-experts", _heads(4, 4, 32), _LFM2, _EXPERTS, {"num_dense_layers": 0}),
    # llama.cpp has no scale of these weights.
    _tiny("lfm2moe-mqa64-scaled", _heads(2, 1, 64), _LFM2, _EXPERTS, _SCALED, in_llama_cpp=False),
    _tiny("qwen3next-gqa64", _heads(4, 2, 64, 128), _DELTA, _EXPERTS, _SHARED),
    _tiny(
        "qwen3next-three-heads-a-key",
        _heads(2, 1, 64, 160),
        _DELTA,
        _EXPERTS,
        _SHARED,
        _THREE_HEADS_A_KEY,
    ),
    _tiny("qwen35-gqa64", _heads(4, 2, 64, 128), _DELTA),
    _tiny("qwen35-three-heads-a-key", _heads(2, 1, 64, 160), _DELTA, _THREE_HEADS_A_KEY, _TIED),
    _tiny("qwen35moe-gqa64", _heads(4, 2, 64, 128), _DELTA, _EXPERTS, _SHARED),
    _tiny("gptoss-gqa64-sinks", _heads(4, 2, 64, 192), _GPT_OSS, _rope("default")),
    # Every pair is blended, however the range of the blend is rounded: llama.cpp always does that.
    _tiny(
        "gptoss-gqa32-yarn",
        _heads(8, 2, 32, 160),
        _GPT_OSS,
        {"rope_parameters": {**_GPT_OSS_YARN, "rope_theta": 4.0}},
    ),
    _tiny(
        "gptoss-mha64-yarn",
        _heads(3, 3, 64, 192),
        _GPT_OSS,
        {
            "rope_parameters": {
                **_GPT_OSS_YARN,
                "rope_theta": 1000.0,
                "original_max_position_embeddings": 4096,
            }
        },
        in_llama_cpp=False,
    ),
    _tiny("olmoe-mha64", _heads(3, 3, 64), _EXPERTS),
    _tiny("olmoe-gqa64", _heads(4, 2, 64), _EXPERTS, _LLAMA3, in_llama_cpp=False),
)
# Models that read texts both ways and give no logits, but hidden states.
ENCODERS: tuple[Tiny, ...] = (
    _tiny("bert-mha32", BERT, {"num_attention_heads": 4}),
    _tiny("bert-mha64-one-type", BERT, {"type_vocab_size": 1, "hidden_size": 192}, _THREE_HEADS),
    _tiny("xlm_roberta-mha32", BERT, ROBERTA, {"num_attention_heads": 4}),
    _tiny("nomic_bert-mha64", BERT, {"rope_theta": 1000.0, "hidden_act": "silu"}),
    _tiny("modernbert-mha64", MODERN_BERT, {"num_hidden_layers": 5}),
    _tiny(
        "modernbert-mha32-all-windows",
        MODERN_BERT,
        _FOUR_HEADS_OF_32,
        _ALL_WINDOWS,
        in_llama_cpp=False,
    ),
)
ALL = (*MODELS, *ENCODERS)
# The one that llama.cpp's graph of Gemma 3n expresses: too deep to be run by every test.
GEMMA3N_OF_LLAMA_CPP = _tiny(
    "gemma3n-llamacpp", _heads(4, 2, 32, 128), GEMMA3N, AS_LLAMA_CPP_HAS_IT
)
BY_NAME: Mapping[str, Tiny] = {model.name: model for model in ALL}


def write(model: Tiny, folder: Path, *, shards: int = 1, tokenizer: bool = True) -> Path:
    """Writes a checkpoint as a Hugging Face folder and returns the folder."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, model.config)
    tensors = dict(model.tensors())
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        index = {}
        for number in range(shards):
            file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
            part = {name: tensors[name] for name in sorted(tensors)[number::shards]}
            save_file(part, folder / file, metadata={"format": "pt"})
            index |= dict.fromkeys(part, file)
        total = sum(tensor.nbytes for tensor in tensors.values())
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {"total_size": total}, "weight_map": index})
        )
    if tokenizer:
        kinds = {"xlm": write_unigram, "bert": write_wordpiece}
        next((kinds[k] for k in kinds if k in model.name), write_tokenizer)(folder)
    return folder


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Writes a config.json."""
    (folder / "config.json").write_text(json.dumps(dict(config), indent=2))


def write_gguf(name: str, folder: Path, **config: Any) -> Path:
    """Converts a tiny model, with changes to its config.json, to float32 GGUF."""
    from edgeinfer_converters.gguf import convert

    chosen = replace(BY_NAME[name], config={**BY_NAME[name].config, **config})
    convert(write(chosen, folder / "hf"), folder / "tiny.gguf", quant="f32")
    return folder / "tiny.gguf"
