"""A vocabulary that contradicts itself is an error that names the key."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeinfer.errors import CorruptFileError, UnsupportedError
from edgeinfer.tokenizer.from_gguf import from_gguf
from support.small_vocabulary import byte_level, sentencepiece

BPE, SPM = byte_level(), sentencepiece()
TOKENS = BPE["tokenizer.ggml.tokens"]
PIECES = SPM["tokenizer.ggml.tokens"]

CORRUPT: dict[str, tuple[str, dict[str, Any]]] = {
    "no tokens": ("tokens", byte_level(tokens=None)),
    "empty tokens": ("tokens", byte_level(tokens=[])),
    "tokens of another type": ("tokens", byte_level(tokens=np.arange(9))),
    "duplicate tokens": ("tokens", byte_level(tokens=[*TOKENS[:-1], TOKENS[0]])),
    "model of another type": ("model", byte_level(model=3)),
    "too few types": ("token_type", byte_level(token_type=[1] * 5)),
    "too many types": ("token_type", byte_level(token_type=[1] * 5000)),
    "unknown type": ("token_type", byte_level(token_type=[99] * len(TOKENS))),
    "negative type": ("token_type", byte_level(token_type=[-1] * len(TOKENS))),
    "types as text": ("token_type", {**BPE, "tokenizer.ggml.token_type": ["1"] * len(TOKENS)}),
    "no merges": ("merges", byte_level(merges=None)),
    "merge without a space": ("merges", byte_level(merges=["he"])),
    "merge of nothing": ("merges", byte_level(merges=["h "])),
    "merge of an unknown token": ("vocabulary", byte_level(merges=["h zz"])),
    "merge into an unknown token": ("vocabulary", byte_level(merges=["h l"])),
    "bos beyond the end": ("bos_token_id", byte_level(bos_token_id=len(TOKENS))),
    "eos below zero": ("eos_token_id", byte_level(eos_token_id=-1)),
    "eos of another type": ("eos_token_id", byte_level(eos_token_id="2")),
    "eos as a boolean": ("eos_token_id", byte_level(eos_token_id=True)),
    "unk beyond the end": ("unknown_token_id", sentencepiece(unknown_token_id=1 << 31)),
    "flag of another type": ("add_bos_token", byte_level(add_bos_token=1)),
    "bos wanted, but not named": (
        "add_bos_token",
        byte_level(add_bos_token=True, bos_token_id=None),
    ),
    "no scores": ("scores", sentencepiece(scores=None)),
    "too few scores": ("scores", sentencepiece(scores=[0.0])),
    "a score that is no number": ("scores", sentencepiece(scores=[float("nan")] * len(PIECES))),
    "a byte of three digits": (
        "tokens",
        sentencepiece(tokens=[text.replace("<0x41>", "<0x041>") for text in PIECES]),
    ),
    "a byte with a sign": (
        "tokens",
        sentencepiece(tokens=[text.replace("<0x41>", "<0x+4>") for text in PIECES]),
    ),
    "a byte of other digits": (
        "tokens",
        sentencepiece(tokens=[text.replace("<0x41>", "<0x\u0664\u0661>") for text in PIECES]),
    ),
    "a normalization that is none": (
        "vocabulary",
        sentencepiece(precompiled_charsmap=np.full(7, 255, np.uint8)),
    ),
    "a chat template that is no text": (
        "chat_template",
        {**BPE, "tokenizer.chat_template": 7},
    ),
}


@pytest.mark.parametrize("name", CORRUPT)
def test_a_contradiction_names_the_key(name: str) -> None:
    key, metadata = CORRUPT[name]

    with pytest.raises(CorruptFileError, match=key):
        from_gguf(metadata)


@pytest.mark.parametrize("pre", ["gpt-3", "", "llama-bpe\n"])
def test_an_unknown_pre_tokenizer_is_named(pre: str) -> None:
    with pytest.raises(UnsupportedError, match=pre.strip() or "no pre-tokenizer"):
        from_gguf(byte_level(pre=pre))


def test_a_missing_pre_tokenizer_is_not_guessed() -> None:
    with pytest.raises(UnsupportedError, match="names no pre-tokenizer"):
        from_gguf(byte_level(pre=None))


@pytest.mark.parametrize("model", ["rwkv", "plamo2", "", "none"])
def test_an_unknown_model_is_named(model: str) -> None:
    with pytest.raises(UnsupportedError, match=repr(model)):
        from_gguf(byte_level(model=model))


def test_holes_in_a_vocabulary_are_no_tokens_of_text() -> None:
    tokenizer = from_gguf(byte_level(tokens=[*TOKENS, "", ""], token_type=None))

    assert tokenizer.vocab_size == len(TOKENS) + 2
    assert tokenizer.encode("") == []
