"""The metadata of small vocabularies, made in the test."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeinfer.tokenizer.pieces import BYTE_OF

# TokenType, by number: these tests must not pass because of a wrong name.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def gguf_keys(**keys: Any) -> dict[str, Any]:
    """Returns keys as a GGUF's metadata has them: numbers in arrays, None left out."""
    types = {"token_type": np.int32, "scores": np.float32}
    return {
        f"tokenizer.ggml.{name}": np.array(value, types[name]) if name in types else value
        for name, value in keys.items()
        if value is not None
    }


def byte_level(**changes: Any) -> dict[str, Any]:
    """GPT-2's bytes, three merges, an end of text, an end of turn and a user-defined one."""
    merges = ["h e", "l l", "he ll"]
    texts = [*BYTE_OF, "he", "ll", "hell", "<|end|>", "<|im_end|>", "<tool>"]
    types = [NORMAL] * (len(texts) - 3) + [CONTROL, CONTROL, USER_DEFINED]
    keys = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": texts,
        "token_type": types,
        "merges": merges,
        "bos_token_id": texts.index("<|end|>"),
        "eos_token_id": texts.index("<|end|>"),
    }
    return gguf_keys(**{**keys, **changes})


def sentencepiece(**changes: Any) -> dict[str, Any]:
    """SentencePiece's bytes and a few pieces, the longest the best."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = ["▁", "a", "b", "ab", "▁a", "▁ab", "é", "▁▁"]
    texts = ["<unk>", "<s>", "</s>", *bytes_, *pieces, "<mark>"]
    scores = [0.0] * (3 + 256) + [-9, -9, -9, -3, -2, -1, -9, -4] + [0.0]
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * len(pieces) + [USER_DEFINED]
    keys = {"model": "llama", "tokens": texts, "scores": scores, "token_type": types}
    return gguf_keys(**{**keys, **changes})
