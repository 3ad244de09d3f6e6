"""Text to ids and back: special tokens, what is added, bytes, and streams."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.errors import NotFoundError, UsageError
from edgeinfer.tokenizer import Tokenizer, load
from edgeinfer.tokenizer.from_gguf import from_gguf
from support.small_vocabulary import byte_level, sentencepiece

BPE = from_gguf(byte_level())
SPM = from_gguf(sentencepiece())
EVERY = pytest.mark.parametrize("tokenizer", [BPE, SPM], ids=["byte-level", "sentencepiece"])


def texts(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    return [tokenizer.token_text(number) for number in ids]


def test_merges_follow_their_order() -> None:
    assert texts(BPE, BPE.encode("hello hell")) == ["hell", "o", "Ġ", "hell"]


def test_ids_that_only_the_model_has_stand_for_no_text() -> None:
    padded = BPE.padded(BPE.vocab_size + 3)

    assert padded.vocab_size == BPE.vocab_size + 3
    assert padded.decode([*BPE.encode("hello"), BPE.vocab_size + 2]) == "hello"
    assert padded.padded(2).vocab_size == padded.vocab_size


def test_scores_become_merges() -> None:
    assert texts(SPM, SPM.encode("ab ab", add_special=False)) == ["▁ab", "▁ab"]


def test_text_without_a_piece_falls_back_to_its_bytes() -> None:
    assert texts(SPM, SPM.encode("ü", add_special=False)) == ["▁", "<0xC3>", "<0xBC>"]


def test_special_tokens_in_a_text_are_tokens_or_text() -> None:
    parsed = BPE.encode("<|im_end|>h<tool>")
    literal = BPE.encode("<|im_end|>h<tool>", parse_special=False)

    assert texts(BPE, parsed) == ["<|im_end|>", "h", "<tool>"]
    # User-defined tokens are part of the text's language; control tokens are not.
    assert texts(BPE, literal) == [*"<|im_end|>", "h", "<tool>"]


def test_a_space_begins_each_piece_of_sentencepiece_text() -> None:
    assert texts(SPM, SPM.encode("ab<mark>ab")) == ["<s>", "▁ab", "<mark>", "▁ab"]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, ["<s>", "▁a"]),
        ({"add_bos_token": False}, ["▁a"]),
        ({"add_bos_token": False, "add_eos_token": True}, ["▁a", "</s>"]),
        ({"add_space_prefix": False}, ["<s>", "a"]),
        ({"bos_token_id": 2}, ["</s>", "▁a"]),
    ],
)
def test_flags_say_what_is_added(keys: Mapping[str, Any], expected: list[str]) -> None:
    tokenizer = from_gguf(sentencepiece(**keys))

    assert texts(tokenizer, tokenizer.encode("a")) == expected
    assert tokenizer.add_bos == (expected[0] in ("<s>", "</s>"))


def test_extra_spaces_are_removed_if_the_file_says() -> None:
    tokenizer = from_gguf(sentencepiece(remove_extra_whitespaces=True))

    assert tokenizer.encode("  ab    ab ") == tokenizer.encode("ab ab")


def test_every_end_of_generation_is_known() -> None:
    assert texts(BPE, sorted(BPE.eos_ids)) == ["<|end|>", "<|im_end|>"]
    assert texts(SPM, sorted(SPM.eos_ids)) == ["</s>"]


def test_skips_special_tokens_on_request() -> None:
    ids = [*SPM.encode("ab"), 2]

    assert SPM.decode(ids) == "<s> ab</s>"
    assert SPM.decode(ids, skip_special=True) == "ab"


@EVERY
@given(text=st.text())
def test_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text, add_special=False)) == text


@EVERY
@given(data=st.data(), skip=st.booleans())
def test_a_stream_is_the_whole_in_pieces(
    tokenizer: Tokenizer, data: st.DataObject, skip: bool
) -> None:
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=40))
    stream = tokenizer.stream(skip_special=skip)

    pieces = [stream.push(number) for number in ids]

    assert "".join(pieces) + stream.finish() == tokenizer.decode(ids, skip_special=skip)


@EVERY
def test_a_stream_holds_a_character_until_it_is_whole(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("🦙", add_special=False)
    stream = tokenizer.stream(continues=True)

    pieces = [stream.push(number) for number in ids]

    assert len(ids) >= 4
    assert [piece for piece in pieces if piece.strip()] == ["🦙"]
    assert stream.finish() == ""


def test_a_broken_tail_is_one_replacement_character() -> None:
    stream = BPE.stream()

    assert [stream.push(number) for number in BPE.encode("🦙")[:3]] == ["", "", ""]
    assert stream.finish() == "\ufffd"


def test_a_stream_that_continues_keeps_its_first_space() -> None:
    first = SPM.encode("ab", add_special=False)[0]

    assert SPM.stream().push(first) == "ab"
    assert SPM.stream(continues=True).push(first) == " ab"


@pytest.mark.parametrize("number", [-1, 10**9])
def test_ids_outside_the_vocabulary_are_refused(number: int) -> None:
    calls: list[Callable[[], object]] = [
        lambda: BPE.decode([number]),
        lambda: BPE.token_bytes(number),
        lambda: BPE.token_text(number),
        lambda: BPE.is_special(number),
        lambda: BPE.stream().push(number),
    ]
    for call in calls:
        with pytest.raises(UsageError, match=str(number)):
            call()


def test_half_a_character_is_refused() -> None:
    with pytest.raises(UsageError, match="surrogate"):
        BPE.encode("a\ud800")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"nothing\.gguf"):
        load(tmp_path / "nothing.gguf")
    with pytest.raises(NotFoundError, match=r"no tokenizer\.json"):
        load(tmp_path)


@EVERY
@pytest.mark.parametrize("unit", ["a", " ", "\n", "🦙", "\0", "\u0301", "'", "1", "ab "])
def test_the_worst_text_takes_linear_time(tokenizer: Tokenizer, unit: str) -> None:
    def seconds(octets: int) -> float:
        text = unit * (octets // len(unit.encode()))
        start = time.process_time()
        tokenizer.encode(text)
        return time.process_time() - start

    # Sixteen times the text; a quadratic cost would be 256 times the time.
    assert seconds(200_000) < 60 * max(seconds(12_500), 0.002)
