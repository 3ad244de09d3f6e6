"""What the small JSON files beside a Hugging Face tokenizer say about special tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeinfer.errors import CorruptFileError
from edgeinfer.formats.untrusted_json import parse_json

NAMES = ("bos", "eos", "unk", "sep", "pad", "mask", "cls")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object; one that is not there is empty.

    Raises:
        CorruptFileError: not valid JSON, or not an object.
    """
    if not path.is_file():
        return {}
    try:
        return parse_json(path.read_bytes())
    except ValueError as error:
        raise CorruptFileError(f"{path}: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialTokens:
    """The special tokens of a folder.

    Attributes:
        ids: by name: ``bos``, ``eos``, ``unk``, ...
        ends: all ids the model is said to end with; ``ids["eos"]`` among them.
        add_bos: whether ids begin with ``bos``; None if tokenizer.json says.
        add_eos: likewise for ``eos``.
    """

    ids: Mapping[str, int]
    ends: tuple[int, ...]
    add_bos: bool | None
    add_eos: bool | None


def special_tokens(folder: Path, vocabulary: Mapping[str, int]) -> SpecialTokens:
    """Collects what tokenizer_config.json and its neighbours say.

    Args:
        folder: of the model.
        vocabulary: the id of each token, added ones included.

    Raises:
        CorruptFileError: a file is no JSON, or names a token that is not there.
    """
    config = read_json(folder / "tokenizer_config.json")
    by_text = {**read_json(folder / "special_tokens_map.json"), **config}
    model = read_json(folder / "config.json")
    # The last that names a token's id counts; an MLC folder's "pad" is always 0, and no such token.
    generation = _ids_of(model) | _ids_of(read_json(folder / "generation_config.json"))
    of_mlc = _ids_of(read_json(folder / "mlc-chat-config.json"))
    generation |= {name: of_mlc[name] for name in ("bos", "eos") if name in of_mlc}
    known = frozenset(vocabulary.values())
    ids: dict[str, int] = {}
    for name in NAMES:
        text = _text(by_text.get(f"{name}_token"))
        numbers = [number for number in generation.get(name, []) if number in known]
        if text is not None and text in vocabulary:
            ids[name] = vocabulary[text]
        elif numbers and f"{name}_token" not in by_text:
            ids[name] = numbers[0]
    ends = [ids["eos"]] if "eos" in ids else []
    ends += [number for number in generation.get("eos", []) if number in known]
    stated = {
        name: value
        for name in ("bos", "eos")
        if isinstance(value := config.get(f"add_{name}_token"), bool)
    }
    # As transformers does: one stated flag means that the other, unstated, is false.
    return SpecialTokens(
        ids=ids,
        ends=tuple(dict.fromkeys(ends)),
        add_bos=stated.get("bos", False) if stated else None,
        add_eos=stated.get("eos", False) if stated else None,
    )


def chat_template(folder: Path) -> str | None:
    """Returns the source of the folder's chat template: its own file, or in the configs.

    Raises:
        CorruptFileError: it is neither text nor a list with one named "default".
    """
    file = folder / "chat_template.jinja"
    if file.is_file():
        try:
            return file.read_bytes().decode()
        except UnicodeDecodeError as error:
            raise CorruptFileError(f"{file}: not UTF-8 at byte {error.start}") from error
    for name in ("chat_template.json", "tokenizer_config.json"):
        stated = read_json(folder / name).get("chat_template")
        if isinstance(stated, list):
            named = [entry for entry in stated if isinstance(entry, dict)]
            stated = {entry.get("name"): entry.get("template") for entry in named}.get("default")
        if stated is None:
            continue
        if not isinstance(stated, str):
            raise CorruptFileError(f"{folder / name}: 'chat_template' is not a text")
        return stated
    return None


def _text(token: Any) -> str | None:
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _ids_of(config: Mapping[str, Any]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for name in NAMES:
        value = config.get(f"{name}_token_id")
        numbers = value if isinstance(value, list) else [value]
        integers = [number for number in numbers if type(number) is int]
        if integers:
            found[name] = integers
    return found
