"""XLM-RoBERTa's tokenizer: in a GGUF it cuts texts as it does in tokenizer.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer as Encoder

from edgeinfer.errors import CorruptFileError, UnsupportedError
from edgeinfer.tokenizer import load_tokenizer
from edgeinfer.tokenizer.from_gguf import from_gguf
from edgeinfer.tokenizer.vocabulary import PREFIX
from edgeinfer_converters.vocabulary import gguf_vocabulary
from support.tiny_tokenizer import write_unigram

TEXTS = [
    "the cat sat on the mat",
    "  a   rat  ",
    "Wo ist die Katze?",
    "",
    "\ufb01ne \uff21\uff22 caf\u00e9\n\tna\u00efve\u00a0is",  # normalised, white space of all kinds
    "\u4eca\u65e5\u306f \u2603\ufe0f e\u0301",  # no token, and characters of several code points
    "x" * 500,
    "\u2581the \u2581 cat",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_unigram(tmp_path)
    return tmp_path


def changed(folder: Path, part: str, value: Any) -> Path:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {part: value}))
    return folder


@pytest.mark.parametrize("text", TEXTS)
def test_texts_are_cut_alike(text: str, folder: Path) -> None:
    theirs = Encoder.from_file(str(folder / "tokenizer.json"))

    ours = from_gguf(gguf_vocabulary(folder))

    assert ours.encode(text) == theirs.encode(text).ids == load_tokenizer(folder).encode(text)
    inner = ours.encode(text, add_special=False)
    assert inner == theirs.encode(text, add_special_tokens=False).ids
    assert ours.decode(inner) == load_tokenizer(folder).decode(inner)


def test_special_tokens_frame_a_text_and_are_told_from_text(folder: Path) -> None:
    for ours in (from_gguf(gguf_vocabulary(folder)), load_tokenizer(folder)):
        mask, unknown = ours.vocab_size - 1, 3

        assert ours.encode("") == [0, 2]
        assert ours.encode("the<mask>", parse_special=True)[-2] == mask
        for text in ("the <mask>", "<mask>", "the</s>", "a<s><pad>", "</s> </s>"):
            found = ours.encode(text, parse_special=False)[1:-1]
            assert not {0, 1, 2, mask}.intersection(found)
            assert unknown in found  # "<" is no token here


def test_a_model_without_a_normalizer_and_prefix_too(folder: Path) -> None:
    changed(folder, "normalizer", None)
    words = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "never", "split": True}
    changed(folder, "pre_tokenizer", words)
    theirs = Encoder.from_file(str(folder / "tokenizer.json"))
    keys = gguf_vocabulary(folder)

    assert keys[PREFIX + "add_space_prefix"] is False
    assert keys[PREFIX + "remove_extra_whitespaces"] is False
    for text in TEXTS[:3]:
        assert from_gguf(keys).encode(text) == theirs.encode(text).ids


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("normalizer", {"type": "Lowercase"}, "Lowercase"),
        ("pre_tokenizer", {"type": "Whitespace"}, "Whitespace"),
        ("pre_tokenizer", None, "spaces"),
    ],
)
def test_what_a_gguf_cannot_say_is_refused(part: str, value: Any, words: str, folder: Path) -> None:
    with pytest.raises(UnsupportedError, match=words):
        gguf_vocabulary(changed(folder, part, value))


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        ({"vocab": [["a", 0.0], ["a", -1.0]], "unk_id": 0}, CorruptFileError, "twice"),
        ({"vocab": [["a", "b"]], "unk_id": 0}, CorruptFileError, "texts and scores"),
        ({"vocab": [], "unk_id": 0}, CorruptFileError, "unk_id"),
        ({"vocab": [["a", 0.0]], "unk_id": 1}, CorruptFileError, "unk_id"),
        ({"vocab": [["a", 0.0]], "unk_id": 0, "byte_fallback": True}, UnsupportedError, "bytes"),
    ],
)
def test_a_vocabulary_that_makes_no_sense_is_refused(
    model: dict[str, Any], error: type[Exception], words: str, folder: Path
) -> None:
    with pytest.raises(error, match=words):
        gguf_vocabulary(changed(folder, "model", {"type": "Unigram", **model}))


def test_a_gguf_without_scores_is_corrupt(folder: Path) -> None:
    keys = gguf_vocabulary(folder)
    assert keys.pop(PREFIX + "scores").dtype == np.float32
    with pytest.raises(CorruptFileError, match="scores"):
        from_gguf(keys)
