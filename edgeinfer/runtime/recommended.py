"""How a model wants to be sampled: what its file says, or else what its makers publish."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgeinfer.types import SamplingParams

# GGUF key after "general.sampling." -> field; the keys are llama.cpp's.
_KEYS = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_last_n": "repeat_last_n",
    "penalty_repeat": "repeat_penalty",
}

# Beginning of the model's name, letters and digits only -> the values of its model card or
# generation_config.json on huggingface.co.
_PUBLISHED: Mapping[str, Mapping[str, float]] = {
    "smollm2": {"temperature": 0.2, "top_p": 0.9, "top_k": 50, "min_p": 0.0},
    "smollm3": {"temperature": 0.6, "top_p": 0.95, "top_k": 0, "min_p": 0.0},
    "qwen3": {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.0},
    "qwen25": {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "min_p": 0.0},
    "gemma3": {"temperature": 1.0, "top_p": 0.95, "top_k": 64, "min_p": 0.0},
    "llama3": {"temperature": 0.6, "top_p": 0.9, "top_k": 50, "min_p": 0.0},
}


def recommended(metadata: Mapping[str, Any]) -> SamplingParams:
    """Returns the sampling that suits a model.

    Args:
        metadata: of its GGUF file.
    """
    stated_names = (metadata.get(f"general.{key}") for key in ("basename", "name"))
    name = next((name for name in stated_names if isinstance(name, str) and name), "")
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    values: dict[str, Any] = next(
        (dict(found) for start, found in _PUBLISHED.items() if plain.startswith(start)), {}
    )
    for key, field in _KEYS.items():
        stated = metadata.get(f"general.sampling.{key}")
        if isinstance(stated, (int, float)):
            values[field] = stated
    return replace(SamplingParams(), **values)
