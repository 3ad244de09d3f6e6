"""The tokenizer of a Hugging Face folder as the ``tokenizer.ggml.*`` keys of a GGUF.

Three kinds of tokenizer.json have a place in a GGUF: byte-level BPE, whose pre-tokenizer is
recognised by its rules and written by its name, SentencePiece's BPE and BERT's WordPiece. What
cannot be written without changing the tokens is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer as Encoder

from edgeinfer.errors import CorruptFileError, NotFoundError, UnsupportedError
from edgeinfer.tokenizer import folder as folders
from edgeinfer.tokenizer import sentencepiece_model
from edgeinfer.tokenizer.encoders import guarded
from edgeinfer.tokenizer.pieces import BYTE_TOKEN, SPACE
from edgeinfer.tokenizer.pretokenizers import DIGIT, DIGITS, GPT2, PRETOKENIZERS
from edgeinfer.tokenizer.sentencepiece_model import KEY_OF
from edgeinfer.tokenizer.vocabulary import (
    FIRST_ONLY_KEY,
    LSTRIP_KEY,
    PREFIX,
    RSTRIP_KEY,
    TokenType,
)
from edgeinfer_converters import unigram, wordpiece
from edgeinfer_converters.components import flattened

_MOST_PADDING = 100_000


def gguf_vocabulary(folder: Path, vocab_size: int | None = None) -> dict[str, Any]:
    """Returns the metadata of a folder's tokenizer.

    Args:
        folder: with a tokenizer.json, which goes first, or a tokenizer.model.
        vocab_size: rows of the embedding, to which tokens are padded; config.json's by
            default.

    Raises:
        NotFoundError: there is no tokenizer.
        CorruptFileError: a file is not what its name says, or has more tokens than rows.
        UnsupportedError: a GGUF cannot hold it; says what stands against it.
    """
    if vocab_size is None:
        stated = folders.read_json(folder / "config.json").get("vocab_size")
        vocab_size = stated if type(stated) is int else None
    if (folder / "tokenizer.json").is_file():
        keys = _from_json(folder)
    elif (folder / "tokenizer.model").is_file():
        keys = sentencepiece_model.folder_metadata(folder)
    else:
        raise NotFoundError(
            f"{folder}: no tokenizer.json and no tokenizer.model",
            hint="download them too; a checkpoint without its tokenizer is of no use",
        )
    return _padded(keys, vocab_size, folder)


@dataclass(slots=True)
class _Tokens:
    """Texts and types by id, with holes until the end."""

    texts: dict[int, str]
    types: dict[int, int]
    added: dict[int, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def ids(self) -> dict[str, int]:
        return {text: number for number, text in self.texts.items()}


def _from_json(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer.json"
    source = folders.read_json(path)
    model = source.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict | list):
        raise CorruptFileError(f"{path}: no vocabulary")
    kind = model.get("type", "BPE")
    if kind not in ("BPE", "WordPiece", "Unigram"):
        raise UnsupportedError(f"{path}: a {kind} model; BPE, WordPiece, Unigram can be written")
    if kind == "Unigram":
        scores, model = unigram.scores_and_ids(path, model)
    for option in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(option) and kind == "BPE":
            raise UnsupportedError(f"{path}: BPE with {option} {model[option]!r}")
    tokens = _tokens(path, model, source.get("added_tokens") or [])
    encoder = guarded(lambda: Encoder.from_file(str(path)), str(path))
    encoder.no_padding()
    encoder.no_truncation()
    if kind == "WordPiece":
        return _wordpiece(folder, source, tokens, encoder)
    if kind == "Unigram":
        specific = unigram.keys(path, source, scores, max(tokens.texts) + 1)
    elif model.get("byte_fallback"):
        specific = _sentencepiece(path, source, model, tokens)
    else:
        specific = _byte_level(path, source, model)
    size = max(tokens.texts) + 1
    keys = {
        **specific,
        "tokens": [tokens.texts.get(number, f"[PAD{number}]") for number in range(size)],
        "token_type": np.array(
            [tokens.types.get(number, TokenType.UNUSED) for number in range(size)], np.int32
        ),
        **({} if kind == "Unigram" else {"merges": _merges(path, model)}),
        **_specials(folder, encoder, tokens.ids),
    }
    written = {PREFIX + name: value for name, value in keys.items()}
    for key, option in ((LSTRIP_KEY, "lstrip"), (RSTRIP_KEY, "rstrip")):
        numbers = [number for number, token in tokens.added.items() if token.get(option)]
        if numbers:
            written[key] = np.array(numbers, np.int32)
    if _first_only(source.get("pre_tokenizer")):
        written[FIRST_ONLY_KEY] = True
    return written


def _wordpiece(
    folder: Path, source: Mapping[str, Any], tokens: _Tokens, encoder: Encoder
) -> dict[str, Any]:
    path = folder / "tokenizer.json"
    for number, type_ in tokens.types.items():
        if type_ == TokenType.UNKNOWN:
            tokens.types[number] = TokenType.CONTROL
    size = max(tokens.texts) + 1
    types = [tokens.types.get(number, TokenType.UNUSED) for number in range(size)]
    texts = [tokens.texts.get(number, f"[PAD{number}]") for number in range(size)]
    special = folders.special_tokens(folder, tokens.ids)
    keys = {
        "model": "bert",
        **wordpiece.normalizer_keys(path, source),
        "tokens": wordpiece.gguf_texts(path, texts, types),
        "token_type": np.array(types, np.int32),
        **{KEY_OF[n]: special.ids[n] for n in ("unk", "pad", "mask") if n in special.ids},
        **wordpiece.frame_keys(*_frame(folder, encoder, special)),
    }
    return {PREFIX + name: value for name, value in keys.items()}


def _tokens(path: Path, model: Mapping[str, Any], added: list[Any]) -> _Tokens:
    vocabulary = model["vocab"]
    if not isinstance(vocabulary, dict) or any(
        type(number) is not int or number < 0 for number in vocabulary.values()
    ):
        raise CorruptFileError(f"{path}: the vocabulary is not a table of ids")
    texts = {number: text for text, number in vocabulary.items()}
    if len(texts) != len(vocabulary):
        raise CorruptFileError(f"{path}: two tokens have the same id")
    unknown = model.get("unk_token")
    types = {
        number: TokenType.BYTE
        if model.get("byte_fallback") and BYTE_TOKEN.fullmatch(text)
        else TokenType.UNKNOWN
        if text == unknown
        else TokenType.NORMAL
        for number, text in texts.items()
    }
    tokens = _Tokens(texts, {number: int(type_) for number, type_ in types.items()})
    for token in added:
        number, text = token.get("id"), token.get("content")
        if type(number) is not int or not isinstance(text, str) or number < 0:
            raise CorruptFileError(f"{path}: an added token without id or content")
        tokens.texts[number] = text
        tokens.added[number] = token
        if tokens.types.get(number) != TokenType.UNKNOWN:
            special = token.get("special") is True
            tokens.types[number] = TokenType.CONTROL if special else TokenType.USER_DEFINED
    if not tokens.texts or max(tokens.texts) > len(tokens.texts) + _MOST_PADDING:
        raise CorruptFileError(f"{path}: ids up to {max(tokens.texts, default=0)}")
    return tokens


def _byte_level(path: Path, source: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    nfc = _is_nfc(path, source.get("normalizer"))
    splits = _splits(path, source.get("pre_tokenizer"))
    ignore_merges = bool(model.get("ignore_merges"))
    for name, rules in PRETOKENIZERS.items():
        if (rules.splits, rules.nfc, rules.ignore_merges) == (splits, nfc, ignore_merges):
            return {"model": "gpt2", "pre": name}
    described = " then ".join(map(repr, splits))
    raise UnsupportedError(
        f"{path}: no name is known for a pre-tokenizer that splits at {described}"
        f"{', after NFC' if nfc else ''}{', ignoring merges' if ignore_merges else ''}"
    )


def _is_nfc(path: Path, normalizer: Any) -> bool:
    parts = flattened(normalizer, "normalizers")
    kinds = [part.get("type") for part in parts]
    if kinds not in ([], ["NFC"]):
        raise UnsupportedError(f"{path}: byte-level BPE with the normalizer {normalizer}")
    return bool(kinds)


def _splits(path: Path, pre_tokenizer: Any) -> tuple[str, ...]:
    """The patterns that cut text into words, one after the other, then bytes."""
    parts = flattened(pre_tokenizer, "pretokenizers")
    splits: list[str] = []
    for number, part in enumerate(parts):
        pattern = part.get("pattern", {})
        match part.get("type"):
            case "Split" if "Regex" in pattern and _isolates(part):
                splits.append(pattern["Regex"])
            case "Digits":
                splits.append(DIGIT if part.get("individual_digits") else DIGITS)
            case "ByteLevel" if number == len(parts) - 1 and not part.get("add_prefix_space"):
                # The library's own default.
                if part.get("use_regex", True):
                    splits.append(GPT2)
                return tuple(splits)
            case _:
                break
    raise UnsupportedError(f"{path}: no name is known for the pre-tokenizer {pre_tokenizer}")


def _isolates(split: Mapping[str, Any]) -> bool:
    ways = (("Isolated", False), ("Removed", True))
    return (split.get("behavior"), bool(split.get("invert"))) in ways


def _sentencepiece(
    path: Path, source: Mapping[str, Any], model: Mapping[str, Any], tokens: _Tokens
) -> dict[str, Any]:
    prefix, escapes = False, False
    for part in flattened(source.get("normalizer"), "normalizers"):
        match part:
            case {"type": "Prepend", "prepend": "\u2581"}:
                prefix = True
            case {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}:
                escapes = True
            case _:
                raise UnsupportedError(f"{path}: SentencePiece with the normalizer {part}")
    for part in flattened(source.get("pre_tokenizer"), "pretokenizers"):
        match part:
            case {"type": "Metaspace", "replacement": "\u2581", "split": False}:
                escapes = True
                prefix = prefix or part.get("prepend_scheme") != "never"
            case {"type": "Split", "pattern": {"String": " "}} if escapes:
                pass  # no space is left to split at
            case _:
                raise UnsupportedError(f"{path}: SentencePiece with the pre-tokenizer {part}")
    if not escapes:
        raise UnsupportedError(f"{path}: BPE with bytes, but spaces are not {SPACE!r}")
    size = max(tokens.texts) + 1
    return {
        "model": "llama",
        "pre": "default",
        "scores": _scores(path, model, tokens, size),
        "add_space_prefix": prefix,
    }


def _first_only(pre_tokenizer: Any) -> bool:
    return any(
        part.get("type") == "Metaspace" and part.get("prepend_scheme") == "first"
        for part in flattened(pre_tokenizer, "pretokenizers")
    )


def _scores(
    path: Path, model: Mapping[str, Any], tokens: _Tokens, size: int
) -> Any:  # float32 (size,)
    """A token's score is its rank among the merges; what no merge makes comes last."""
    ids = tokens.ids
    scores = np.full(size, -1e6, np.float32)
    for rank, (left, right) in enumerate(_pairs(path, model)):
        number = ids.get(left + right)
        if number is not None and scores[number] == -1e6:
            scores[number] = -rank
    return scores


def _pairs(path: Path, model: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs = []
    for merge in model.get("merges", []):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or [type(part) for part in pair] != [str, str]:
            raise CorruptFileError(f"{path}: {merge!r:.80} is no pair to merge")
        pairs.append((pair[0], pair[1]))
    return pairs


def _merges(path: Path, model: Mapping[str, Any]) -> list[str]:
    merges = []
    for left, right in _pairs(path, model):
        if " " in left + right:
            raise UnsupportedError(f"{path}: a merge of {left!r} and {right!r}, with a space")
        merges.append(f"{left} {right}")
    return merges


def _specials(folder: Path, encoder: Encoder, ids: Mapping[str, int]) -> dict[str, Any]:
    special = folders.special_tokens(folder, ids)
    keys: dict[str, Any] = {
        KEY_OF[name]: number for name, number in special.ids.items() if name in KEY_OF
    }
    if special.ends:
        keys.setdefault(KEY_OF["eos"], special.ends[0])
        others = [number for number in special.ends if number != keys[KEY_OF["eos"]]]
        if others:
            keys["eot_token_id"] = others[0]
    before, after = _frame(folder, encoder, special)
    bos, eos = keys.get(KEY_OF["bos"]), keys.get(KEY_OF["eos"])
    if len(after) == 1 and eos is not None and keys.get("eot_token_id", after[0]) == after[0]:
        # Models for embeddings end texts with another token than answers.
        if after != [eos]:
            keys["eot_token_id"] = eos
        keys[KEY_OF["eos"]] = eos = after[0]
    for found, number, name in ((before, bos, "bos"), (after, eos, "eos")):
        if found not in ([], [number]):
            raise UnsupportedError(
                f"{folder}: a text is framed by the tokens {before} and {after}; a GGUF can "
                f"only say {name} ({number})"
            )
        keys[f"add_{name}_token"] = bool(found)
    return keys


def _frame(
    folder: Path, encoder: Encoder, special: folders.SpecialTokens
) -> tuple[list[int], list[int]]:
    """The ids before and after a text."""
    if special.add_bos is not None:
        before = [special.ids["bos"]] if special.add_bos and "bos" in special.ids else []
        after = [special.ids["eos"]] if special.add_eos and "eos" in special.ids else []
        return before, after
    inner = encoder.encode("a", add_special_tokens=False).ids
    framed = encoder.encode("a", add_special_tokens=True).ids
    for start in range(len(framed) - len(inner) + 1):
        if framed[start : start + len(inner)] == inner:
            return framed[:start], framed[start + len(inner) :]
    raise UnsupportedError(f"{folder}: its post-processor changes the tokens themselves")


def _padded(keys: dict[str, Any], vocab_size: int | None, folder: Path) -> dict[str, Any]:
    """Adds unused tokens up to the rows of the embedding."""
    tokens = keys[PREFIX + "tokens"]
    missing = (vocab_size or len(tokens)) - len(tokens)
    if missing < 0:
        raise CorruptFileError(
            f"{folder}: {len(tokens)} tokens, but the model has {vocab_size} (vocab_size)"
        )
    if missing > _MOST_PADDING:
        raise CorruptFileError(f"{folder}: {len(tokens)} tokens for a vocab_size of {vocab_size}")
    taken = set(tokens)
    fills = []
    for number in range(len(tokens), len(tokens) + missing):
        text = f"[PAD{number}]"
        fills.append(text if text not in taken else f"[PAD{number}_]")
    keys[PREFIX + "tokens"] = [*tokens, *fills]
    for name, fill in (("token_type", TokenType.UNUSED), ("scores", -1e6)):
        values = keys.get(PREFIX + name)
        if values is not None:
            padding = np.full(missing, fill, values.dtype)
            keys[PREFIX + name] = np.concatenate([values, padding])
    return keys
