"""The keys of a GGUF that do not depend on the weights' types: what, by whom, how to talk to it.

Names are those of the GGUF specification
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgeinfer.errors import CorruptFileError
from edgeinfer_converters.json_files import read_json

# generation_config.json -> GGUF key, and whether the value is a whole number.
_SAMPLING = {
    "temperature": ("general.sampling.temp", float),
    "top_k": ("general.sampling.top_k", int),
    "top_p": ("general.sampling.top_p", float),
    "min_p": ("general.sampling.min_p", float),
    "repetition_penalty": ("general.sampling.penalty_repeat", float),
}

# Front matter of README.md -> GGUF key.
_CARD = {
    "license": "general.license",
    "license_name": "general.license.name",
    "license_link": "general.license.link",
}
_CARD_LISTS = {"tags": "general.tags", "language": "general.languages"}

_TEMPLATE_KEY = "tokenizer.chat_template"


def general(folder: Path, parameters: int) -> dict[str, Any]:
    """Returns name, size, licence, tags and recommended sampling of a checkpoint.

    Args:
        folder: the checkpoint.
        parameters: how many weights the model has.
    """
    keys: dict[str, Any] = {
        "general.type": "model",
        "general.name": folder.resolve().name,
        "general.size_label": size_label(parameters),
    }
    card = _model_card(folder)
    for theirs, ours in _CARD.items():
        if isinstance(card.get(theirs), str):
            keys[ours] = card[theirs]
    for theirs, ours in _CARD_LISTS.items():
        values = card.get(theirs)
        values = [values] if isinstance(values, str) else values
        if isinstance(values, list) and values and all(isinstance(v, str) for v in values):
            keys[ours] = values
    return keys | _sampling(folder)


def size_label(parameters: int) -> str:
    """Returns a count of weights as people write it: 135M, 1.2B."""
    for unit, suffix in ((10**12, "T"), (10**9, "B"), (10**6, "M")):
        if parameters >= unit * 0.9995:
            scaled = parameters / unit
            return f"{scaled:.1f}{suffix}" if scaled < 9.95 else f"{scaled:.0f}{suffix}"
    return f"{max(parameters / 1000, 0.1):.1f}K"


def chat_templates(folder: Path) -> dict[str, Any]:
    """Returns the chat template and the named ones beside it.

    transformers has kept them in tokenizer_config.json (one, or a list of named ones), in
    chat_template.json, in chat_template.jinja, and the named ones as files of a folder; a
    file of its own counts more.

    Raises:
        CorruptFileError: a file is not JSON, or a template not a string.
    """
    named = dict(_stated_templates(folder))
    for path in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        named[path.stem] = path.read_text(encoding="utf-8")
    path = folder / "chat_template.jinja"
    if path.exists():
        named["default"] = path.read_text(encoding="utf-8")
    keys: dict[str, Any] = {}
    if "default" in named:
        keys[_TEMPLATE_KEY] = named.pop("default")
    for name, template in named.items():
        keys[f"{_TEMPLATE_KEY}.{name}"] = template
    if named:
        keys["tokenizer.chat_templates"] = sorted(named)
    return keys


def _stated_templates(folder: Path) -> Iterator[tuple[str, str]]:
    for file in ("tokenizer_config.json", "chat_template.json"):
        path = folder / file
        stated = read_json(path).get("chat_template") if path.exists() else None
        if stated is None:
            continue
        entries = stated if isinstance(stated, list) else [{"name": "default", "template": stated}]
        for entry in entries:
            name = entry.get("name") if isinstance(entry, Mapping) else None
            template = entry.get("template") if isinstance(entry, Mapping) else None
            if not isinstance(name, str) or not isinstance(template, str):
                raise CorruptFileError(f"{path}: 'chat_template' is neither a string nor a list")
            yield name, template


def _sampling(folder: Path) -> dict[str, Any]:
    path = folder / "generation_config.json"
    stated = read_json(path) if path.exists() else {}
    return {
        key: kind(stated[theirs])
        for theirs, (key, kind) in _SAMPLING.items()
        if type(stated.get(theirs)) in (int, float)
    }


def _model_card(folder: Path) -> Mapping[str, Any]:
    """Returns the front matter of README.md; an empty mapping if there is none."""
    path = folder / "README.md"
    if not path.exists():
        return {}
    from huggingface_hub import metadata_load
    from yaml import YAMLError  # type: ignore[import-untyped]

    try:
        return metadata_load(path) or {}
    except (YAMLError, ValueError):
        return {}  # a card for people; nothing depends on it
