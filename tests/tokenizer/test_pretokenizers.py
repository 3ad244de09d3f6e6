"""Every name of a pre-tokenizer means what it means in llama.cpp."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgeinfer.formats.gguf import open_gguf
from edgeinfer.tokenizer import load
from edgeinfer.tokenizer.pretokenizers import PRETOKENIZERS
from support.unicode_text import random_texts
from support.vocabulary_gguf import llamacpp_encoder, write_vocabulary

pytestmark = pytest.mark.peer

# There, \p{Lu} and \p{M} are approximated by ASCII ranges.
APPROXIMATE_THERE = {"gpt-4o", "llama4", "tekken"}
# There, wide spaces are turned into a control character before a pattern sees them.
WITHOUT_WIDE_SPACES = {"deepseek-coder"}


@pytest.mark.parametrize("name", PRETOKENIZERS)
def test_ids_are_those_of_llamacpp(name: str, test_data: Path, tmp_path: Path) -> None:
    with open_gguf(test_data / "vocab" / "ggml-vocab-gpt-2.gguf") as source:
        keys = {key: source.metadata[key] for key in source.metadata if "tokenizer" in key}
    path = write_vocabulary(tmp_path / "model.gguf", {**keys, "tokenizer.ggml.pre": name})
    ours = load(path)
    texts = random_texts(500, seed=23, nfc=PRETOKENIZERS[name].nfc)
    if name in APPROXIMATE_THERE:
        texts = ["".join(filter(str.isascii, text)) for text in texts]
    if name in WITHOUT_WIDE_SPACES:
        texts = [re.sub(r"[^\S \n\r\t]", "", text) for text in texts]

    with llamacpp_encoder(path) as peer:
        for text in texts:
            assert ours.encode(text, add_special=False) == peer(text, False, True), text
        assert ours.add_bos == (peer("a", True, True) != peer("a", False, True))
