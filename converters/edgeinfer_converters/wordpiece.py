"""BERT's WordPiece tokenizer as the ``tokenizer.ggml.*`` keys of a GGUF.

BERT marks the tokens that go on with a word ("##ing"), a GGUF those that begin one ("\u2581sing").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeinfer.errors import UnsupportedError
from edgeinfer.tokenizer.pieces import SPACE
from edgeinfer.tokenizer.vocabulary import TokenType

CONTINUES = "##"
MOST_CHARACTERS = 100  # of a word; longer ones are unknown


def normalizer_keys(path: Path, source: Mapping[str, Any]) -> dict[str, Any]:
    """Returns how a tokenizer.json cleans text, if a GGUF can say it.

    Raises:
        UnsupportedError: it cannot.
    """
    model = source["model"]
    for key, usual in (
        ("continuing_subword_prefix", CONTINUES),
        ("max_input_chars_per_word", MOST_CHARACTERS),
    ):
        if model.get(key, usual) != usual:
            raise UnsupportedError(f"{path}: WordPiece with {key} {model[key]!r}")
    pre_tokenizer = source.get("pre_tokenizer") or {}
    if pre_tokenizer.get("type") != "BertPreTokenizer":
        raise UnsupportedError(f"{path}: WordPiece with the pre-tokenizer {pre_tokenizer}")
    match source.get("normalizer"):
        case {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "lowercase": bool(lowercase),
            **rest,
        }:
            stated = rest.get("strip_accents")
            return {
                "normalizer.lowercase": lowercase,
                "normalizer.strip_accents": lowercase if stated is None else bool(stated),
            }
        case other:
            raise UnsupportedError(f"{path}: WordPiece with the normalizer {other}")


def gguf_texts(path: Path, texts: Sequence[str], types: Sequence[int]) -> list[str]:
    """Returns tokens as a GGUF writes them.

    Raises:
        UnsupportedError: two would be the same.
    """
    written = [
        text
        if type_ in (TokenType.CONTROL, TokenType.UNUSED)
        else text.removeprefix(CONTINUES)
        if text.startswith(CONTINUES)
        else SPACE + text
        for text, type_ in zip(texts, types, strict=True)
    ]
    (text, count), *_ = Counter(written).most_common(1)
    if count > 1:
        raise UnsupportedError(f"{path}: two tokens that a GGUF would both write as {text!r}")
    return written


def frame_keys(before: Sequence[int], after: Sequence[int]) -> dict[str, int]:
    """Returns the keys of what is put around a text: [CLS] and [SEP].

    Raises:
        UnsupportedError: a GGUF cannot say it.
    """
    if len(before) != 1 or len(after) != 1:
        raise UnsupportedError(
            f"WordPiece that frames a text by {list(before)} and {list(after)}; a GGUF has one "
            "token before and one after it"
        )
    # llama.cpp begins texts with "bos", other readers with "cls".
    return {
        "bos_token_id": before[0],
        "cls_token_id": before[0],
        "seperator_token_id": after[0],
    }
