"""mlc-chat-config.json: what an engine is told of a model besides its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeinfer.tokenizer import Tokenizer
from edgeinfer_converters.checkpoint import GgufSource, HuggingFaceSource
from edgeinfer_converters.json_files import read_json
from edgeinfer_converters.mlc.conversation import read_conversation
from edgeinfer_converters.mlc.model_config import Settings

NAME = "mlc-chat-config.json"
VERSION = "0.1.0"

# Recommended sampling: generation_config.json and GGUF key -> what MLC LLM takes if not told.
_SAMPLING: Mapping[str, tuple[str, float]] = {
    "temperature": ("general.sampling.temp", 1.0),
    "top_p": ("general.sampling.top_p", 1.0),
    "repetition_penalty": ("general.sampling.penalty_repeat", 1.0),
}


def chat_config(
    *,
    model_type: str,
    quant: str,
    settings: Settings,
    vocab_size: int,
    tokenizer: Tokenizer,
    tokenizer_files: list[str],
    tokenizer_info: Mapping[str, Any],
    sampling: Mapping[str, float],
    template: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns the settings as MLC LLM's own tool writes them."""
    ends = sorted(tokenizer.eos_ids)
    return {
        "version": VERSION,
        "model_type": model_type,
        "quantization": quant,
        "model_config": settings.model,
        "vocab_size": vocab_size,
        "context_window_size": settings.context,
        "sliding_window_size": settings.window,
        "prefill_chunk_size": settings.prefill,
        "attention_sink_size": settings.sinks,
        "tensor_parallel_shards": 1,
        "pipeline_parallel_stages": 1,
        # Ids beyond it are never sampled; their embeddings are padding.
        "active_vocab_size": min(tokenizer.vocab_size, vocab_size),
        **sampling,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "tokenizer_files": tokenizer_files,
        "tokenizer_info": dict(tokenizer_info),
        "conv_template": dict(template),
        "pad_token_id": 0,
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": ends or tokenizer.eos_id,
        "model_task": "chat",
        "embedding_metadata": None,
    }


def sampling(source: HuggingFaceSource | GgufSource) -> dict[str, float]:
    """Returns the recommended sampling, or what MLC LLM takes without."""
    found = {}
    stated: Mapping[str, Any] = {}
    if isinstance(source, GgufSource):
        stated = {theirs: source.gguf.metadata.get(key) for theirs, (key, _) in _SAMPLING.items()}
    elif (source.path / "generation_config.json").is_file():
        stated = read_json(source.path / "generation_config.json")
    for theirs, (_, default) in _SAMPLING.items():
        value = stated.get(theirs)
        found[theirs] = float(value) if isinstance(value, (int, float)) else default
    return found


def template(tokenizer: Tokenizer, notes: list[str]) -> dict[str, Any]:
    """Returns "conv_template": the chat template's texts, or text without roles.

    Args:
        tokenizer: has the chat template.
        notes: are added to if MLC LLM will write something else than the template.
    """
    plain = _plain_template(tokenizer)
    found = read_conversation(tokenizer)
    if found is not None:
        if not found.exact_without_system:
            notes.append("MLC LLM writes an empty system message where none is given")
        return {**plain, **found.settings()}
    if tokenizer.chat_template is not None:
        notes.append(
            "the chat template is more than texts around messages: conv_template is text without "
            "roles; put one of MLC LLM's in its place to chat"
        )
    return plain


def _plain_template(tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns MLC LLM's "LM": text without roles, after the token that begins a sequence."""
    begins = tokenizer.add_bos and tokenizer.bos_id is not None
    return {
        "name": "LM",
        "system_template": "{system_message}",
        "system_message": "",
        "system_prefix_token_ids": [tokenizer.bos_id] if begins else [],
        "add_role_after_system_message": True,
        "roles": {"user": "", "assistant": ""},
        "role_templates": {
            "user": "{user_message}",
            "assistant": "{assistant_message}",
            "tool": "{tool_message}",
        },
        "messages": [],
        "seps": [""],
        "role_content_sep": "",
        "role_empty_sep": "",
        "stop_str": [],
        "stop_token_ids": sorted(tokenizer.eos_ids),
        "function_string": "",
        "use_function_calling": False,
    }
