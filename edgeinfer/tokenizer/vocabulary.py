"""The vocabulary in a GGUF's metadata, checked before anything is built from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from itertools import chain
from typing import Any, cast

from edgeinfer.errors import CorruptFileError

PREFIX = "tokenizer.ggml."
# What the format has no key for; other readers pass over these.
RSTRIP_KEY = "edgeinfer.tokenizer.rstrip"
LSTRIP_KEY = "edgeinfer.tokenizer.lstrip"
FIRST_ONLY_KEY = "edgeinfer.tokenizer.prefix_first_only"


class TokenType(IntEnum):
    """What a token is for, by its number in ``tokenizer.ggml.token_type``."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


# Keys of single special tokens, and the older names some files still use.
SPECIAL_IDS = (
    "bos",
    "eos",
    "eot",
    "eom",
    "unknown",
    "seperator",  # spelt so in the format
    "padding",
    "mask",
    "cls",
    "fim_pre",
    "fim_suf",
    "fim_mid",
    "fim_pad",
    "fim_rep",
    "fim_sep",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The ``tokenizer.ggml.*`` metadata, lengths, ranges and types verified.

    Attributes:
        model: the kind of tokenizer: ``gpt2``, ``llama``, ``gemma4``, ``bert``, ``t5``.
        pre: the name of the pre-tokenizer, or None.
        tokens: the text of each id; none is empty, no two are equal.
        ids: the id of each text.
        types: the type of each id.
        scores: the score of each id, or None.
        merges: the pairs of byte-level BPE, best first, or None.
        specials: ids of special tokens by their name in ``SPECIAL_IDS``.
        flags: the boolean keys that are there, such as ``add_bos_token``.
        charsmap: SentencePiece's compiled normalization, or None.
        strips: ids of added tokens that take the white space before ("l") or after ("r")
            them along; None if the file does not say.
        prefix_first_only: whether the space prefix is for the start of the text alone,
            or for each piece between special tokens.
        model_name: ``general.name``.
    """

    model: str
    pre: str | None
    tokens: list[str]
    ids: dict[str, int]
    types: list[int]
    scores: list[float] | None
    merges: list[tuple[str, str]] | None
    specials: Mapping[str, int]
    flags: Mapping[str, bool]
    charsmap: bytes | None
    strips: Mapping[str, frozenset[int]] | None
    prefix_first_only: bool
    model_name: str


def read(metadata: Mapping[str, Any]) -> Vocabulary:
    """Reads the vocabulary of a GGUF.

    Raises:
        CorruptFileError: a key is missing, has another type than it should, or
            contradicts another; the message names the key.
    """
    tokens, ids = _tokens(_required(metadata, "tokens", list))
    count = len(tokens)
    types = _array(metadata, "token_type", count, kinds="iu")
    return Vocabulary(
        model=_required(metadata, "model", str),
        pre=_optional(metadata, "pre", str),
        tokens=tokens,
        ids=ids,
        types=[TokenType.NORMAL] * count if types is None else _checked_types(types),
        scores=_scores(_array(metadata, "scores", count, kinds="fiu")),
        merges=_merges(_optional(metadata, "merges", list)),
        specials=_specials(metadata, count),
        flags={
            name: value
            for name in (
                "add_bos_token",
                "add_eos_token",
                "add_space_prefix",
                "remove_extra_whitespaces",
                "normalizer.lowercase",
                "normalizer.strip_accents",
            )
            if (value := _optional(metadata, name, bool)) is not None
        },
        charsmap=_charsmap(metadata),
        strips=_strips(metadata),
        prefix_first_only=metadata.get(FIRST_ONLY_KEY) is True,
        model_name=str(metadata.get("general.name", "")),
    )


def _optional(metadata: Mapping[str, Any], name: str, kind: type) -> Any:
    value = metadata.get(PREFIX + name)
    # Not isinstance: a boolean is no integer here.
    if value is not None and type(value) is not kind:
        raise CorruptFileError(
            f"key '{PREFIX}{name}' is of type {type(value).__name__}, expected {kind.__name__}"
        )
    return value


def _required(metadata: Mapping[str, Any], name: str, kind: type) -> Any:
    value = _optional(metadata, name, kind)
    if value is None:
        raise CorruptFileError(
            f"key '{PREFIX}{name}' is missing", hint="the file has no tokenizer; convert it again"
        )
    return value


def _tokens(tokens: list[Any]) -> tuple[list[str], dict[str, int]]:
    if not tokens:
        raise CorruptFileError(f"key '{PREFIX}tokens' is empty")
    # Some vocabularies have holes; a hole must have a name, since no two tokens may be equal.
    named = [text or f"[EMPTY_{number}]" for number, text in enumerate(tokens)]
    ids = dict(zip(named, range(len(named)), strict=True))
    if len(ids) != len(named):
        seen: dict[str, int] = {}
        for number, text in enumerate(named):
            if text in seen:
                raise CorruptFileError(
                    f"key '{PREFIX}tokens': {text!r:.80} is both {seen[text]} and {number}"
                )
            seen[text] = number
    return named, ids


def _array(metadata: Mapping[str, Any], name: str, count: int, *, kinds: str) -> Any:
    value = metadata.get(PREFIX + name)
    if value is None:
        return None
    if getattr(getattr(value, "dtype", None), "kind", "") not in tuple(kinds):
        raise CorruptFileError(f"key '{PREFIX}{name}' is not an array of numbers")
    if len(value) != count:
        raise CorruptFileError(f"key '{PREFIX}{name}' has {len(value)} entries for {count} tokens")
    return value


def _checked_types(types: Any) -> list[int]:
    numbers: list[int] = types.tolist()
    unknown = set(numbers).difference(TokenType)
    if unknown:
        raise CorruptFileError(f"key '{PREFIX}token_type': {min(unknown)} is not a token type")
    return numbers


def _scores(scores: Any) -> list[float] | None:
    if scores is None:
        return None
    numbers: list[float] = scores.tolist()
    if any(number != number for number in numbers):
        raise CorruptFileError(f"key '{PREFIX}scores' has a score that is not a number")
    return numbers


def _merges(merges: list[str] | None) -> list[tuple[str, str]] | None:
    if merges is None:
        return None
    # No token of most vocabularies has a space; this is five times as fast.
    pairs = [tuple(merge.split(" ")) for merge in merges]
    if set(map(len, pairs)) <= {2} and "" not in chain.from_iterable(pairs):
        return cast("list[tuple[str, str]]", pairs)
    return _odd_merges(merges)


def _odd_merges(merges: list[str]) -> list[tuple[str, str]]:
    """As ``_merges``; knows tokens with spaces, and says which entry is wrong."""
    pairs = []
    for number, merge in enumerate(merges):
        # The first character may be a space itself.
        at = merge.find(" ", 1)
        if at < 0 or at == len(merge) - 1:
            raise CorruptFileError(
                f"key '{PREFIX}merges': entry {number}, {merge!r:.80}, is no pair"
            )
        pairs.append((merge[:at], merge[at + 1 :]))
    return pairs


def _specials(metadata: Mapping[str, Any], count: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in SPECIAL_IDS:
        value = _optional(metadata, f"{name}_token_id", int)
        if value is None:
            continue
        if not 0 <= value < count:
            raise CorruptFileError(
                f"key '{PREFIX}{name}_token_id' is {value}, but there are {count} tokens"
            )
        found[name] = value
    return found


def _charsmap(metadata: Mapping[str, Any]) -> bytes | None:
    value = metadata.get(PREFIX + "precompiled_charsmap")
    if value is None:
        return None
    if getattr(getattr(value, "dtype", None), "itemsize", 0) != 1:
        raise CorruptFileError(f"key '{PREFIX}precompiled_charsmap' is not an array of bytes")
    octets: bytes = value.tobytes()
    return octets


def _strips(metadata: Mapping[str, Any]) -> dict[str, frozenset[int]] | None:
    found = {"l": metadata.get(LSTRIP_KEY), "r": metadata.get(RSTRIP_KEY)}
    if all(value is None for value in found.values()):
        return None
    return {
        side: frozenset() if value is None else frozenset(map(int, value))
        for side, value in found.items()
    }
