"""The "model_config" of mlc-chat-config.json: a model's numbers as MLC LLM's families read them.

What a family of MLC LLM cannot compute is an error where it would compute something else
instead, and a note where MLC LLM ships such models all the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeinfer.arch.config import Activation
from edgeinfer.arch.hyperparameters import Hyperparameters, period_pattern
from edgeinfer.arch.rope import RopeKind
from edgeinfer.errors import UnsupportedError
from edgeinfer_converters.mlc.rope import llama3_scaling, longrope_scaling, plain_base

MOST_PREFILL = 2048  # tokens at a time; MLC LLM takes the memory for them in advance
BATCH = 128  # sequences, unless the engine is told otherwise
NO_WINDOW = -1
_GEMMA3_PERIOD = 6
_GEMMA3_CONTEXT = 8192  # or the window, if that is more
_HIDDEN_ACT = {Activation.SILU: "silu", Activation.GELU_TANH: "gelu_pytorch_tanh"}


@dataclass(slots=True, kw_only=True)
class Settings:
    """What mlc-chat-config.json says of a model.

    Attributes:
        model: "model_config".
        context: tokens; -1 where the window is all there is.
        window: tokens, -1 for none.
        prefill: tokens at a time.
        sinks: first tokens that stay in the window, -1 for no window.
        notes: where MLC LLM computes something else.
    """

    model: dict[str, Any]
    context: int
    window: int = NO_WINDOW
    prefill: int
    sinks: int = NO_WINDOW
    notes: list[str] = field(default_factory=list)


def settings(
    model_type: str, numbers: Hyperparameters, activation: Activation, biases: bool
) -> Settings:
    """Returns the settings of a model.

    Args:
        model_type: the family as MLC LLM calls it.
        numbers: the model's.
        activation: of the feed-forward block.
        biases: whether the attention has biases.

    Raises:
        UnsupportedError: MLC LLM's family computes something else.
    """
    _refuse_scales(model_type, numbers)
    notes: list[str] = []
    context = _context(model_type, numbers, notes)
    window = numbers.window if model_type == "mistral" and any(numbers.windowed) else NO_WINDOW
    prefill = min(n for n in (context, window, MOST_PREFILL) if n > 0)
    found = Settings(
        model={
            "hidden_size": numbers.width,
            "intermediate_size": numbers.ff_width,
            "num_attention_heads": numbers.heads,
            "num_hidden_layers": numbers.layers,
            "num_key_value_heads": numbers.kv_heads,
            "head_dim": numbers.head_dim,
            "rms_norm_eps": numbers.norm_eps,
            "vocab_size": numbers.vocab_size,
            "tie_word_embeddings": numbers.tied_output,
            "context_window_size": context,
            "prefill_chunk_size": prefill,
            "tensor_parallel_shards": 1,
            "max_batch_size": BATCH,
        },
        context=context,
        window=window,
        sinks=0 if window > 0 else NO_WINDOW,
        prefill=prefill,
        notes=notes,
    )
    facts = _Facts(model_type, numbers, _HIDDEN_ACT[activation], biases)
    _OWN[model_type](facts, found)
    return found


@dataclass(frozen=True, slots=True)
class _Facts:
    model_type: str
    numbers: Hyperparameters
    hidden_act: str
    biases: bool

    @property
    def base(self) -> float:
        numbers = self.numbers
        return plain_base(numbers.rope, numbers.head_dim, self.model_type)


def _refuse_scales(model_type: str, numbers: Hyperparameters) -> None:
    gemma = model_type.startswith("gemma")
    expected = {
        "embedding_scale": math.sqrt(numbers.width) if gemma else 1.0,
        "residual_scale": 1.0,
        "output_scale": 1.0,
        "attention_scale": numbers.attention_scale if gemma else numbers.head_dim**-0.5,
        "output_softcap": numbers.output_softcap if model_type == "gemma2" else 0.0,
    }
    for name, value in expected.items():
        if not math.isclose(getattr(numbers, name), value, rel_tol=1e-4):
            raise UnsupportedError(
                f"MLC LLM's {model_type} has no {name} of {getattr(numbers, name):g}",
                hint="--to gguf keeps this model as it is",
            )
    if not all(numbers.rotated):
        raise UnsupportedError(f"MLC LLM's {model_type} has rotary embeddings in all layers")


def _context(model_type: str, numbers: Hyperparameters, notes: list[str]) -> int:
    """The tokens within which MLC LLM computes what the model does."""
    context = numbers.context
    if any(numbers.windowed):
        if model_type == "mistral":
            if not all(numbers.windowed):
                raise UnsupportedError("MLC LLM's mistral has its window in all layers")
            return -1
        if model_type == "gemma3_text":
            most = max(numbers.window, _GEMMA3_CONTEXT)
            if most < context:
                notes.append(f"MLC LLM's gemma3_text has a context of {most} tokens")
            return min(context, most)
        if numbers.window < context:
            context = numbers.window
            notes.append(
                f"MLC LLM's {model_type} has no sliding window: the context ends with it, "
                f"after {context} tokens"
            )
    rope = numbers.rope
    if rope.kind is RopeKind.LONGROPE and rope.original_context < context:
        context = rope.original_context
        notes.append(
            "MLC LLM chooses between LongRoPE's factors by the length of a chunk: the context "
            f"ends where the short ones do, after {context} tokens"
        )
    return context


def _llama(facts: _Facts, found: Settings) -> None:
    numbers = facts.numbers
    found.model |= {
        "position_embedding_base": numbers.rope.base,
        "rope_scaling": llama3_scaling(numbers.rope, numbers.head_dim, facts.model_type),
        "pipeline_parallel_stages": 1,
    }
    if facts.model_type == "llama":
        found.model["disaggregation"] = False
    else:
        found.model["hidden_act"] = facts.hidden_act


def _mistral(facts: _Facts, found: Settings) -> None:
    found.model |= {
        "position_embedding_base": facts.base,
        "sliding_window_size": found.window,
        # None, so that the window is the model's and not one with its first tokens kept.
        "attention_sink_size": 0,
        "tie_word_embeddings": False,
    }


def _qwen2(facts: _Facts, found: Settings) -> None:
    _square(facts)
    found.model |= {
        "hidden_act": facts.hidden_act,
        "rope_theta": facts.base,
        "dtype": "float32",
    }


def _qwen3(facts: _Facts, found: Settings) -> None:
    found.model |= {
        "hidden_act": facts.hidden_act,
        "rope_theta": facts.base,
        "dtype": "float32",
        "attention_bias": facts.biases,
        "weight_block_size": None,
    }


def _phi3(facts: _Facts, found: Settings) -> None:
    _square(facts)
    numbers = facts.numbers
    rope = numbers.rope
    found.model |= {
        "model_type": "phi3",
        "position_embedding_base": rope.base,
        "rope_scaling": longrope_scaling(rope, numbers.context, facts.model_type),
        "max_position_embeddings": numbers.context,
        "original_max_position_embeddings": rope.original_context or numbers.context,
        "partial_rotary_factor": rope.dim / numbers.head_dim,
    }


def _gemma2(facts: _Facts, found: Settings) -> None:
    numbers = facts.numbers
    found.model |= {
        "attention_bias": False,
        "hidden_activation": facts.hidden_act,
        "position_embedding_base": facts.base,
        "attn_logit_softcapping": numbers.attention_softcap or None,
        "final_logit_softcapping": numbers.output_softcap or None,
        "query_pre_attn_scalar": _tidy(numbers.attention_scale**-2),
        "sliding_window": found.context,  # which MLC LLM takes for the context
    }
    if numbers.attention_softcap:
        found.notes.append("MLC LLM's gemma2 leaves the soft cap of the attention scores out")


def _gemma3(facts: _Facts, found: Settings) -> None:
    numbers = facts.numbers
    periodic = period_pattern(_GEMMA3_PERIOD, numbers.layers)
    if numbers.window and numbers.windowed != periodic and numbers.window < numbers.context:
        raise UnsupportedError(
            f"MLC LLM's gemma3_text has a window in all layers but each {_GEMMA3_PERIOD}th"
        )
    if numbers.attention_softcap:
        raise UnsupportedError("MLC LLM's gemma3_text has no soft cap of the attention scores")
    rope = numbers.rope
    linear = rope.kind is RopeKind.LINEAR
    if not linear:
        plain_base(rope, numbers.head_dim, facts.model_type)
    local = numbers.local_rope
    text = {
        **found.model,
        "attention_bias": False,
        "hidden_activation": facts.hidden_act,
        "position_embedding_base": rope.base,
        "rope_scaling": {"rope_type": "linear", "factor": rope.factor} if linear else 0,
        "query_pre_attn_scalar": _tidy(numbers.attention_scale**-2),
        "sliding_window_size": numbers.window or found.context,
        "sliding_window_pattern": _GEMMA3_PERIOD,
        "max_position_embeddings": numbers.context,
    }
    if linear:
        found.notes.append("MLC LLM's gemma3_text leaves the linear factor of RoPE out")
    if local is not None and local != rope:
        text["rope_local_base_freq"] = local.base
        found.notes.append(
            f"MLC LLM's gemma3_text turns windowed layers by the base {rope.base:g}, the model "
            f"by {local.base:g}"
        )
    found.window = int(text["sliding_window_size"])
    found.model = {
        "text_config": text,
        "vocab_size": numbers.vocab_size,
        "tensor_parallel_shards": 1,
        "max_batch_size": BATCH,
        "context_window_size": found.context,
        "sliding_window_size": found.window,
        "prefill_chunk_size": found.prefill,
        "is_text_model": True,
    }


def _square(facts: _Facts) -> None:
    numbers = facts.numbers
    if numbers.heads * numbers.head_dim != numbers.width:
        raise UnsupportedError(
            f"MLC LLM's {facts.model_type} has heads as wide as the model together, not "
            f"{numbers.heads} of {numbers.head_dim} for {numbers.width}"
        )


def _tidy(value: float) -> float | int:
    whole = round(value)
    return whole if math.isclose(value, whole, rel_tol=1e-4) else value


_OWN: Mapping[str, Callable[[_Facts, Settings], None]] = {
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "phi3": _phi3,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "olmo2": _llama,
}
