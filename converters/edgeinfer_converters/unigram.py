"""A unigram tokenizer (XLM-RoBERTa's) as the ``tokenizer.ggml.*`` keys of a GGUF."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeinfer.errors import CorruptFileError, UnsupportedError
from edgeinfer.tokenizer.pieces import SPACE
from edgeinfer_converters.components import flattened


def scores_and_ids(path: Path, model: Mapping[str, Any]) -> tuple[list[float], dict[str, Any]]:
    """Takes the vocabulary apart: the scores, and the model with ids by text and the unknown one.

    Raises:
        CorruptFileError: it is no list of texts, each with its score.
        UnsupportedError: it falls back to bytes.
    """
    if model.get("byte_fallback"):
        raise UnsupportedError(f"{path}: a unigram model that falls back to bytes")
    entries, unknown = model["vocab"], model.get("unk_id")
    if not isinstance(entries, list) or not all(map(_is_entry, entries)):
        raise CorruptFileError(f"{path}: the vocabulary is no list of texts and scores")
    ids = {text: number for number, (text, _) in enumerate(entries)}
    if len(ids) != len(entries):
        raise CorruptFileError(f"{path}: a text is twice in the vocabulary")
    if type(unknown) is not int or not 0 <= unknown < len(entries):
        raise CorruptFileError(f"{path}: 'unk_id' is {unknown!r}")
    return [float(score) for _, score in entries], {
        **model,
        "vocab": ids,
        "unk_token": entries[unknown][0],
    }


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, list)
        and len(entry) == 2
        and isinstance(entry[0], str)
        and isinstance(entry[1], int | float)
        and math.isfinite(entry[1])
    )


def keys(
    path: Path, source: Mapping[str, Any], scores: Sequence[float], size: int
) -> dict[str, Any]:
    """Returns the keys that say how texts are cut.

    Args:
        path: of tokenizer.json.
        source: what it says.
        scores: of the model's tokens; those added after them, which are looked for before texts are
            cut, get the lowest.
        size: how many tokens there are, with those added.

    Raises:
        UnsupportedError: texts are changed or cut in another way than a GGUF can say.
    """
    charsmap, once = b"", False
    for part in flattened(source.get("normalizer"), "normalizers"):
        match part:
            case {"type": "Precompiled", "precompiled_charsmap": str(text)} if not charsmap:
                charsmap = base64.b64decode(text)
            case {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}:
                once = True
            case {"type": "Strip"}:
                once = True
            case _:
                raise UnsupportedError(f"{path}: a unigram model with the normalizer {part}")
    prefix = None
    for part in flattened(source.get("pre_tokenizer"), "pretokenizers"):
        match part:
            case {"type": "WhitespaceSplit"} if prefix is None:
                once = True
            case {"type": "Metaspace", "replacement": "\u2581"} if prefix is None:
                prefix = part.get("prepend_scheme", "always") != "never"
                prefix = prefix and part.get("add_prefix_space", True)
            case _:
                raise UnsupportedError(f"{path}: a unigram model with the pre-tokenizer {part}")
    if prefix is None:
        raise UnsupportedError(f"{path}: a unigram model whose spaces are not {SPACE!r}")
    return {
        "model": "t5",
        "pre": "default",
        "scores": np.array([*scores, *[min(scores)] * (size - len(scores))], np.float32),
        "add_space_prefix": prefix,
        "remove_extra_whitespaces": once,
        **({"precompiled_charsmap": np.frombuffer(charsmap, np.uint8)} if charsmap else {}),
    }
