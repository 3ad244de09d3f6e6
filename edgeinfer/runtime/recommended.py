"""How a model wants to be sampled: what its file says, or else what its makers publish."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from edgeinfer.errors import CorruptFileError, UsageError
from edgeinfer.runtime.sampler import check_params
from edgeinfer.types import SamplingParams

T = TypeVar("T")

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
# generation_config.json on huggingface.co; what they leave out is as transformers has it.
_PUBLISHED: Mapping[str, Mapping[str, float]] = {
    "smollm2": {"temperature": 0.2, "top_p": 0.9, "top_k": 50, "min_p": 0.0},
    "smollm3": {"temperature": 0.6, "top_p": 0.95, "top_k": 50, "min_p": 0.0},
    "qwen3": {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.0},
    "qwen25": {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "min_p": 0.0},
    "gemma3": {"temperature": 1.0, "top_p": 0.95, "top_k": 64, "min_p": 0.0},
    "llama3": {"temperature": 0.6, "top_p": 0.9, "top_k": 50, "min_p": 0.0},
}

# What helps the smallest models besides, by name and size, found by trial.
_REPEAT_PENALTY: Mapping[tuple[str, str], float] = {
    ("smollm2", "135M"): 1.1,  # without it, an answer in 30 never ends
}
# SmolLM2-135M-Instruct Q4_1 begins every second answer to "What is the capital of France?" with
# "L'Etoile", greedy too and in llama.cpp as well; with this, 40 of 40 seeds name Paris.
_SYSTEM: Mapping[tuple[str, str], str] = {
    ("smollm2", "135M"): "Answer in short, plain English sentences.",
}


def recommended(metadata: Mapping[str, Any]) -> SamplingParams:
    """Returns the sampling that suits a model.

    Args:
        metadata: of its GGUF file.

    Raises:
        CorruptFileError: the file states a value that makes no sense.
    """
    name = _plain_name(metadata)
    values: dict[str, Any] = next(
        (dict(found) for start, found in _PUBLISHED.items() if name.startswith(start)), {}
    )
    penalty = _of_size(_REPEAT_PENALTY, metadata)
    if penalty is not None:
        values["repeat_penalty"] = penalty
    for key, field in _KEYS.items():
        stated = metadata.get(f"general.sampling.{key}")
        if isinstance(stated, (int, float)):
            values[field] = stated
    params = replace(SamplingParams(), **values)
    try:
        check_params(params, vocab_size=0)
    except UsageError as error:
        raise CorruptFileError(f"keys 'general.sampling.*': {error.message}") from error
    return params


def system_message(metadata: Mapping[str, Any]) -> str | None:
    """Returns the system message that suits a model, for the command line; mostly None.

    Args:
        metadata: of its GGUF file.
    """
    return _of_size(_SYSTEM, metadata)


def _of_size(table: Mapping[tuple[str, str], T], metadata: Mapping[str, Any]) -> T | None:
    """Looks a model up by name and size."""
    name, size = _plain_name(metadata), metadata.get("general.size_label")
    if not isinstance(size, str):
        return None
    matches = (value for (n, s), value in table.items() if name.startswith(n) and s == size)
    return next(matches, None)


def _plain_name(metadata: Mapping[str, Any]) -> str:
    """The model's name without its variants, letters and digits only."""
    stated = (metadata.get(f"general.{key}") for key in ("basename", "name"))
    name = next((name for name in stated if isinstance(name, str) and name), "")
    return re.sub(r"[^a-z0-9]", "", name.lower())
