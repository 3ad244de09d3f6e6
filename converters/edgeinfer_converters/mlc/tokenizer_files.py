"""The tokenizer of an MLC folder, and what MLC LLM wants to be told of it."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeinfer.errors import CorruptFileError
from edgeinfer.tokenizer import Tokenizer, load_tokenizer
from edgeinfer.tokenizer.pieces import SPACE
from edgeinfer_converters.checkpoint import GgufSource, HuggingFaceSource
from edgeinfer_converters.json_files import read_json
from edgeinfer_converters.made_tokenizer import write_made

_JSON = "tokenizer.json"
_COPIED = (
    "tokenizer.model",
    _JSON,
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "tokenizer_config.json",
)
# What MLC LLM does not look at, and other programs that open the folder do.
_TEMPLATES = ("chat_template.jinja", "chat_template.json")


def write_tokenizer(
    source: HuggingFaceSource | GgufSource, folder: Path
) -> tuple[Tokenizer, list[str]]:
    """Copies a folder's tokenizer files; makes a tokenizer.json where there is none.

    Returns:
        the tokenizer and the files' names.

    Raises:
        NotFoundError: there is no tokenizer.
        CorruptFileError: the vocabulary contradicts itself.
        UnsupportedError: the tokenizer is of a kind that is not known.
    """
    files = []
    if isinstance(source, GgufSource):
        tokenizer = load_tokenizer(source.gguf)
    else:
        tokenizer = load_tokenizer(source.path)
        for name in _COPIED:
            if (source.path / name).is_file():
                shutil.copyfile(source.path / name, folder / name)
                files.append(name)
        for name in _TEMPLATES:
            if (source.path / name).is_file():
                shutil.copyfile(source.path / name, folder / name)
    if _JSON not in files:
        write_made(tokenizer, folder)
        files = [name for name in _COPIED if (folder / name).is_file()]
    _refuse_twins(folder / _JSON)
    return tokenizer, files


def tokenizer_info(path: Path) -> dict[str, Any]:
    """Returns "tokenizer_info": how MLC LLM turns tokens into text.

    MLC LLM looks for the same parts of a tokenizer.json.
    """
    stated = read_json(path)
    decoder = _parts(stated.get("decoder"), "decoders")
    normalizer = _parts(stated.get("normalizer"), "normalizers")
    byte_level = any(part.get("type") == "ByteLevel" for part in decoder)
    return {
        "token_postproc_method": "byte_level" if byte_level else "byte_fallback",
        "prepend_space_in_encode": any(
            part.get("type") == "Prepend" and part.get("prepend") == SPACE for part in normalizer
        ),
        "strip_space_in_decode": any(
            part.get("type") == "Strip"
            and (part.get("content"), part.get("start"), part.get("stop")) == (" ", 1, 0)
            for part in decoder
        ),
    }


def _parts(component: Any, members: str) -> list[Mapping[str, Any]]:
    if not isinstance(component, Mapping):
        return []
    inner = component.get(members) if component.get("type") == "Sequence" else None
    return [part for part in inner if isinstance(part, Mapping)] if inner else [component]


def _refuse_twins(path: Path) -> None:
    """MLC LLM does not open a tokenizer that adds a token twice."""
    added = read_json(path).get("added_tokens") or []
    counts = Counter(token.get("content") for token in added if isinstance(token, Mapping))
    twins = [text for text, count in counts.items() if count > 1]
    if twins:
        raise CorruptFileError(
            f"{path.name}: the token {twins[0]!r} is added twice",
            hint="remove one of the two; MLC LLM does not open such a tokenizer",
        )
