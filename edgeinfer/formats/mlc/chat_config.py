"""A model's numbers from mlc-chat-config.json, as config.json of a checkpoint would state them.

Families of MLC LLM keep most names of transformers. What they name or nest otherwise is put back,
and then there is one reader for both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from edgeinfer.errors import UnsupportedError
from edgeinfer.formats.mlc.families import FAMILIES

NAME = "mlc-chat-config.json"
_CLASSES: Mapping[str, str] = MappingProxyType(
    {family.model_type: name for name, family in FAMILIES.items()}
)
# A model that is all window does not say how far it was trained; Mistral 7B's went so far.
_WINDOWS = 8
_LOCAL_BASE = 10000.0

Settings = dict[str, Any]


def hf_class(model_type: str) -> str:
    """Returns the class of transformers that a family of MLC LLM is.

    Raises:
        UnsupportedError: no such family is known here.
    """
    if model_type not in _CLASSES:
        raise UnsupportedError(
            f"models of MLC LLM's family {model_type!r} are not supported",
            hint=f"known: {', '.join(sorted(_CLASSES))}",
        )
    return _CLASSES[model_type]


def as_hugging_face(stated: Mapping[str, Any]) -> Settings:
    """Returns the config.json of a model.

    Args:
        stated: mlc-chat-config.json.

    Raises:
        UnsupportedError: the family is not known.
        KeyError, TypeError: something is missing, or of another kind.
    """
    model_type = str(stated["model_type"])
    name = hf_class(model_type)
    model = dict(stated["model_config"])
    text = model.pop("text_config", None)
    model |= dict(text or {})
    base = model.get("position_embedding_base") or model.get("rope_theta")
    context = int(stated["context_window_size"])
    found: Settings = {
        **model,
        "architectures": [name],
        "max_position_embeddings": context,
        "sliding_window": None,
        "rope_theta": base,
        "rope_parameters": None,
        "rope_scaling": model.get("rope_scaling") or None,
    }
    _OWN.get(model_type, _nothing)(found, model)
    return found


def _nothing(found: Settings, model: Mapping[str, Any]) -> None:
    """Families that are as transformers has them."""


def _mistral(found: Settings, model: Mapping[str, Any]) -> None:
    window = int(model.get("sliding_window_size") or -1)
    if window > 0:
        found["sliding_window"] = window
        found["max_position_embeddings"] = _WINDOWS * window


def _gemma2(found: Settings, model: Mapping[str, Any]) -> None:
    found["sliding_window"] = model.get("sliding_window")


def _gemma3(found: Settings, model: Mapping[str, Any]) -> None:
    found["sliding_window"] = model.get("sliding_window_size")
    found.setdefault("rope_local_base_freq", _LOCAL_BASE)


def _phi3(found: Settings, model: Mapping[str, Any]) -> None:
    # How far LongRoPE stretches, which decides its attention factor; the context may end before.
    found["max_position_embeddings"] = model["max_position_embeddings"]


_OWN: Mapping[str, Callable[[Settings, Mapping[str, Any]], None]] = MappingProxyType(
    {"mistral": _mistral, "gemma2": _gemma2, "gemma3_text": _gemma3, "phi3": _phi3}
)
