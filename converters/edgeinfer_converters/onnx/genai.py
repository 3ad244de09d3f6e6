"""genai_config.json, with which onnxruntime-genai runs the folder as it is.

An unknown key is fatal there, and ``max_length`` is allocated whole when a generator is made.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgeinfer.arch import ModelConfig
from edgeinfer_converters.onnx.tokenizer_files import TokenIds

NAME = "genai_config.json"
MOST_LENGTH = 4096  # tokens that are allocated unless more are asked for


def write_config(
    folder: Path, graph: str, config: ModelConfig, context: int, tokens: TokenIds
) -> None:
    """Writes the file."""
    ends = list(tokens.ends) or [0]
    record: dict[str, Any] = {
        "model": {
            # One of a fixed list of kinds; this one runs any graph with these inputs.
            "type": "decoder",
            "vocab_size": config.vocab_size,
            "context_length": context,
            "bos_token_id": ends[0] if tokens.bos is None else tokens.bos,
            "eos_token_id": ends,
            "pad_token_id": ends[0],
            "decoder": {
                "filename": graph,
                "head_size": config.head_dim,
                "hidden_size": config.width,
                "num_attention_heads": config.heads,
                "num_hidden_layers": config.layers,
                "num_key_value_heads": config.kv_heads,
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
            },
        },
        "search": {
            "do_sample": False,
            "max_length": min(context, MOST_LENGTH),
            "past_present_share_buffer": True,
        },
    }
    (folder / NAME).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
