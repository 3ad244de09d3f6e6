"""The tokenizer of a GGUF, written as tokenizer.json, says what it said before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Encoder

from edgeinfer.tokenizer import load
from edgeinfer.tokenizer.from_gguf import from_gguf
from edgeinfer_converters.onnx.tokenizer_files import write_made
from support.small_vocabulary import byte_level, sentencepiece

TEXTS = [
    "hello hell",
    "  ab  ab ",
    "ü and 日本 🎉",
    "<|im_end|>h<tool>",
    "it's 12345\n\n\tnew",
    "",
]


@pytest.mark.parametrize("metadata", [byte_level, sentencepiece])
def test_small_vocabularies(metadata: Callable[[], Mapping[str, Any]], tmp_path: Path) -> None:
    write_made(from_gguf(metadata()), tmp_path)

    check(tmp_path, from_gguf(metadata()))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama-spm", "llama-bpe", "qwen2", "phi-3", "gpt-2"])
def test_vocabularies_of_vendors(name: str, test_data: Path, tmp_path: Path) -> None:
    path = test_data / "vocab" / f"ggml-vocab-{name}.gguf"
    write_made(load(path), tmp_path)

    check(tmp_path, load(path))


def check(folder: Path, original: Any) -> None:
    written, alone = load(folder), Encoder.from_file(str(folder / "tokenizer.json"))
    for text in TEXTS:
        ids = original.encode(text)
        assert written.encode(text) == ids
        assert written.decode(ids) == original.decode(ids)
        # Without any of our own code, too, as other programs read it.
        assert alone.encode(text).ids == ids
        assert alone.decode(ids, skip_special_tokens=False) == original.decode(ids)
    assert (written.bos_id, written.eos_id) == (original.bos_id, original.eos_id)
    assert written.chat_template == original.chat_template
