"""A Hugging Face folder's tokenizer, written as a GGUF's, gives the same tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeinfer.errors import CorruptFileError, NotFoundError, UnsupportedError
from edgeinfer.tokenizer import load
from edgeinfer.tokenizer.from_gguf import from_gguf
from edgeinfer_converters.vocabulary import gguf_vocabulary
from support.tokenizer_folders import FAMILIES, write_folder
from support.unicode_text import random_texts
from support.vocabulary_gguf import llamacpp_encoder, write_vocabulary

COUNT = 2000
SENTENCEPIECE = {"llama2", "mistral", "gemma", "phi3"}
NAMES = {"qwen3": "qwen2", "smollm3": "llama-bpe", "olmo2": "dbrx", "granite": "smollm"}

families = pytest.mark.parametrize("name", FAMILIES)


def texts_for(name: str, **options: Any) -> list[str]:
    family = FAMILIES[name]
    return random_texts(COUNT, seed=11, extra=(*family.specials, *family.added), **options)


@pytest.mark.peer
@families
def test_ids_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = write_folder(tmp_path, name, padding=7)
    peer = AutoTokenizer.from_pretrained(folder)
    from_folder = load(folder)
    converted = load(write_vocabulary(tmp_path / "model.gguf", gguf_vocabulary(folder)))

    for text in texts_for(name):
        expected = peer.encode(text)
        assert from_folder.encode(text) == expected, text
        assert converted.encode(text) == expected, text
        assert converted.decode(expected) == from_folder.decode(expected)
    assert converted.eos_id == from_folder.eos_id == peer.eos_token_id
    assert converted.bos_id == from_folder.bos_id == peer.bos_token_id


@pytest.mark.peer
@families
def test_text_decodes_as_in_transformers(name: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = write_folder(tmp_path, name)
    peer = AutoTokenizer.from_pretrained(folder)
    ours = load(folder)

    for text in texts_for(name)[:300]:
        ids = peer.encode(text, add_special_tokens=False)
        assert ours.decode(ids) == peer.decode(ids, clean_up_tokenization_spaces=False)


# llama.cpp: always adds the space, has no composition, or knows the pattern only roughly.
DIFFERENT_THERE = {"mistral", "mistral-nemo"}


@pytest.mark.peer
@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in DIFFERENT_THERE])
def test_ids_are_those_of_llamacpp(name: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, name, padding=7)
    keys = gguf_vocabulary(folder) | {"general.name": f"{name}-mini"}
    path = write_vocabulary(tmp_path / "model.gguf", keys)
    ours = load(path)

    with llamacpp_encoder(path) as peer:
        for text in texts_for(name, nfc=name in ("qwen2", "qwen3")):
            plain = ours.encode(text, add_special=False, parse_special=False)
            assert plain == peer(text, False, False), text
            if name != "phi3":  # which of its markers strip is known there by the model's name
                assert ours.encode(text, add_special=False) == peer(text, False, True), text


@pytest.mark.peer
def test_a_sentencepiece_model_gives_the_ids_of_its_library(tmp_path: Path) -> None:
    import sentencepiece

    from support.tokenizer_folders import train_sentencepiece

    proto = train_sentencepiece()
    (tmp_path / "tokenizer.model").write_bytes(proto)
    peer = sentencepiece.SentencePieceProcessor(model_proto=proto)

    keys = gguf_vocabulary(tmp_path, vocab_size=peer.get_piece_size() + 3)
    tokenizer = from_gguf(keys)

    size = peer.get_piece_size()
    assert keys["tokenizer.ggml.tokens"][:size] == [peer.id_to_piece(n) for n in range(size)]
    assert keys["tokenizer.ggml.tokens"][size:] == [f"[PAD{size + n}]" for n in range(3)]
    for text in random_texts(COUNT, seed=3):
        ids = tokenizer.encode(text, add_special=False, parse_special=False)
        assert ids == peer.encode(text), text


@pytest.mark.parametrize("name", sorted(FAMILIES.keys() - SENTENCEPIECE))
def test_the_pre_tokenizer_is_recognised_by_its_rules(name: str, tmp_path: Path) -> None:
    keys = gguf_vocabulary(write_folder(tmp_path, name))

    known = {"llama3": "llama-bpe", "mistral-nemo": "tekken", "smollm2": "smollm", "gpt2": "gpt-2"}
    assert keys["tokenizer.ggml.pre"] == {**known, **NAMES}.get(name, name)
    assert keys["tokenizer.ggml.model"] == "gpt2"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path, "qwen3")


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_unused_tokens_fill_the_embedding(folder: Path) -> None:
    size = len(gguf_vocabulary(folder)["tokenizer.ggml.tokens"])

    keys = gguf_vocabulary(folder, vocab_size=size + 2)

    assert keys["tokenizer.ggml.tokens"][size:] == [f"[PAD{size}]", f"[PAD{size + 1}]"]
    assert keys["tokenizer.ggml.token_type"].tolist()[-3:] == [4, 5, 5]


def test_token_types_say_what_is_special(folder: Path) -> None:
    keys = gguf_vocabulary(folder)
    types = dict(
        zip(keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"].tolist(), strict=True)
    )

    assert (types["a"], types["<|im_end|>"], types["<think>"]) == (1, 3, 4)


def test_merges_may_be_pairs_or_texts(folder: Path) -> None:
    path = folder / "tokenizer.json"
    source = json.loads(path.read_text())
    pairs = source["model"]["merges"]
    assert isinstance(pairs[0], list)
    expected = gguf_vocabulary(folder)["tokenizer.ggml.merges"]

    change(path, model={**source["model"], "merges": [" ".join(pair) for pair in pairs]})

    assert gguf_vocabulary(folder)["tokenizer.ggml.merges"] == expected


def test_the_ends_of_a_generation_come_along(folder: Path) -> None:
    ids = load(folder)
    end, other = ids.encode("<|im_end|>")[0], ids.encode("<|endoftext|>")[0]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [end, other]}))

    keys = gguf_vocabulary(folder)

    assert keys["tokenizer.ggml.eos_token_id"] == end
    assert keys["tokenizer.ggml.eot_token_id"] == other
    assert {end, other} <= load(folder).eos_ids & from_gguf(keys).eos_ids


def test_an_unknown_pattern_is_shown(folder: Path) -> None:
    path = folder / "tokenizer.json"
    source = json.loads(path.read_text())
    source["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"[a-z]+\d"
    path.write_text(json.dumps(source))

    with pytest.raises(UnsupportedError, match=r"\[a-z\]"):
        gguf_vocabulary(folder)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"normalizer": {"type": "Lowercase"}}, "Lowercase"),
        ({"normalizer": {"type": "NFKC"}}, "NFKC"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "Whitespace"),
        ({"pre_tokenizer": None}, "pre-tokenizer"),
        ({"model": {"type": "WordLevel", "vocab": {}}}, "WordLevel"),
    ],
)
def test_what_a_gguf_cannot_say_is_refused(
    folder: Path, changes: dict[str, Any], named: str
) -> None:
    change(folder / "tokenizer.json", **changes)

    with pytest.raises(UnsupportedError, match=named):
        gguf_vocabulary(folder)


def test_more_tokens_than_rows_are_refused(folder: Path) -> None:
    with pytest.raises(CorruptFileError, match="vocab_size"):
        gguf_vocabulary(folder, vocab_size=10)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model": {"vocab": {"a": "b"}}}'])
def test_a_broken_file_is_named(folder: Path, content: str) -> None:
    (folder / "tokenizer.json").write_text(content)

    with pytest.raises(CorruptFileError, match=r"tokenizer\.json"):
        gguf_vocabulary(folder)


def test_a_truncated_sentencepiece_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a\x10\x0a\x05<unk>\x15")

    with pytest.raises(CorruptFileError, match=r"tokenizer\.model"):
        gguf_vocabulary(tmp_path)


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="tokenizer"):
        gguf_vocabulary(tmp_path)


@pytest.mark.peer
def test_what_llamacpp_calls_gemma4_is_read_as_there(tmp_path: Path) -> None:
    """Its own converter writes the merges of such a tokenizer under another name."""
    keys = gguf_vocabulary(write_folder(tmp_path, "gemma"))
    keys |= {"tokenizer.ggml.model": "gemma4", "general.name": "mini"}
    path = write_vocabulary(tmp_path / "model.gguf", keys)
    ours = load(path)

    with llamacpp_encoder(path) as peer:
        # llama.cpp cuts at line ends, which no merge of Gemma's crosses; some of this one do.
        for text in (text.replace("\n", "") for text in texts_for("gemma")):
            assert ours.encode(text, add_special=False) == peer(text, False, True), text
