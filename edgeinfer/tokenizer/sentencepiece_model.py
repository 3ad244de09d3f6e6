"""SentencePiece models (``tokenizer.model``), read without the sentencepiece library.

The file is a protocol buffer (sentencepiece_model.proto); of its fields only the few that
say how text becomes tokens are read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeinfer.errors import CorruptFileError, UnsupportedError
from edgeinfer.tokenizer import folder
from edgeinfer.tokenizer.vocabulary import PREFIX, TokenType

_BPE, _UNIGRAM = 2, 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class SentencePieceModel:
    """The pieces and rules of a model; a piece's type has the numbers of ``TokenType``."""

    texts: list[str]
    scores: list[float]
    types: list[int]
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    charsmap: bytes


def read(path: Path) -> SentencePieceModel:
    """Reads a model.

    Raises:
        CorruptFileError: not such a file.
        UnsupportedError: an algorithm other than BPE.
    """
    texts, scores, types = [], [], []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    try:
        for number, value in _fields(path.read_bytes()):
            if number == 1:
                piece = dict(_fields(value))
                texts.append(bytes(piece.get(1, b"")).decode())
                scores.append(struct.unpack("<f", piece.get(2, b"\0\0\0\0"))[0])
                types.append(int(piece.get(3, TokenType.NORMAL)))
            elif number == 2:
                trainer = dict(_fields(value))
            elif number == 3:
                normalizer = dict(_fields(value))
    except (ValueError, TypeError, struct.error, IndexError) as error:
        raise CorruptFileError(f"{path}: not a SentencePiece model: {error}") from error
    if not texts:
        raise CorruptFileError(f"{path}: not a SentencePiece model: no pieces")
    if (kind := trainer.get(3, _UNIGRAM)) != _BPE:
        name = "unigram" if kind == _UNIGRAM else f"of type {kind}"
        raise UnsupportedError(f"{path}: a SentencePiece model {name}; only BPE can be read")
    return SentencePieceModel(
        texts=texts,
        scores=scores,
        types=types,
        add_dummy_prefix=bool(normalizer.get(3, True)),
        remove_extra_whitespaces=bool(normalizer.get(4, True)),
        charsmap=bytes(normalizer.get(2, b"")),
    )


def folder_metadata(path: Path) -> dict[str, Any]:
    """Returns the ``tokenizer.ggml.*`` keys of a folder with a tokenizer.model.

    Raises:
        CorruptFileError: a file is not what its name says.
        UnsupportedError: the model is no BPE.
    """
    model = read(path / "tokenizer.model")
    texts, scores, types = list(model.texts), list(model.scores), list(model.types)
    for number, text, special in _added(path):
        if number >= len(texts) + 100_000:
            raise CorruptFileError(f"{path}: added token {text!r:.80} has the id {number}")
        while number >= len(texts):
            texts.append(f"[PAD{len(texts)}]")
            scores.append(-1e6)
            types.append(TokenType.UNUSED)
        texts[number] = text
        types[number] = TokenType.CONTROL if special else TokenType.USER_DEFINED
    ids = {text: number for number, text in enumerate(texts)}
    special_tokens = folder.special_tokens(path, ids)
    keys: dict[str, Any] = {
        "model": "llama",
        "pre": "default",
        "tokens": texts,
        "scores": np.array(scores, np.float32),
        "token_type": np.array(types, np.int32),
        "add_space_prefix": model.add_dummy_prefix,
        "remove_extra_whitespaces": model.remove_extra_whitespaces,
        "add_bos_token": special_tokens.add_bos is not False,
        "add_eos_token": special_tokens.add_eos is True,
    }
    if model.charsmap:
        keys["precompiled_charsmap"] = np.frombuffer(model.charsmap, np.uint8)
    named: dict[str, int | None] = {
        "unk": _first(types, TokenType.UNKNOWN),
        "bos": ids.get("<s>"),
        "eos": ids.get("</s>"),
    }
    for name, found in {**named, **special_tokens.ids}.items():
        if found is not None and name in KEY_OF:
            keys[KEY_OF[name]] = found
    return {PREFIX + name: value for name, value in keys.items()}


KEY_OF = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "unk": "unknown_token_id",
    "sep": "seperator_token_id",
    "pad": "padding_token_id",
    "mask": "mask_token_id",
    "cls": "cls_token_id",
}


def _first(types: list[int], wanted: int) -> int | None:
    return types.index(wanted) if wanted in types else None


def _added(path: Path) -> Iterator[tuple[int, str, bool]]:
    for text, number in folder.read_json(path / "added_tokens.json").items():
        if type(number) is not int or number < 0:
            raise CorruptFileError(f"{path / 'added_tokens.json'}: {text!r:.80} has no id")
        yield number, text, False
    config = folder.read_json(path / "tokenizer_config.json")
    decoder = config.get("added_tokens_decoder", {})
    for number, token in decoder.items() if isinstance(decoder, dict) else ():
        if not str(number).isdecimal() or not isinstance(token, dict):
            raise CorruptFileError(f"{path / 'tokenizer_config.json'}: bad added token {number!r}")
        yield int(number), str(token.get("content", "")), token.get("special") is True


def _fields(octets: bytes) -> Iterator[tuple[int, Any]]:
    """Yields the fields of a message: number, and an integer or the bytes of the value."""
    at = 0
    while at < len(octets):
        tag, at = _varint(octets, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(octets, at)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, at = _varint(octets, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > len(octets):
            raise ValueError("truncated")
        yield tag >> 3, octets[at : at + size]
        at += size


def _varint(octets: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = octets[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number has no end")
