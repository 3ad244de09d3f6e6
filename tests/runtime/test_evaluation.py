"""A model on a text, and a reference that is computed once."""

from __future__ import annotations

import pytest

from edgeinfer.runtime.evaluation import evaluate, reference_logits, text_chunks
from edgeinfer.tokenizer.from_gguf import from_gguf
from support.fake_model import byte_tokenizer, fake_model
from support.small_vocabulary import byte_level

TEXT = "To be, or not to be, that is the question: whether 'tis nobler in the mind" * 3


def test_special_tokens_in_a_text_are_plain_text():
    tokenizer = from_gguf(byte_level())
    (end,) = tokenizer.encode("<|end|>")

    chunks = text_chunks(tokenizer, "<|end|>" * 10, context=32)

    assert end not in chunks.tokens


def test_a_reference_is_computed_once_for_a_key_and_a_text(tmp_path):
    opened = []

    def open_model():
        opened.append(1)
        return fake_model()

    def reference(key: str, text: str = TEXT):
        chunks = text_chunks(byte_tokenizer(), text, context=32)
        return reference_logits(open_model, chunks, {"file": key}, folder=tmp_path), chunks

    first, chunks = reference("a")
    again, _ = reference("a")
    assert again.path == first.path
    assert len(opened) == 1
    reference("b")
    reference("a", TEXT[1:])
    assert len(opened) == 3

    with fake_model() as model:
        found = evaluate(model, chunks, again)
    assert found.kl_max < 1e-7
    assert found.top1_agreement == 1


@pytest.mark.parametrize("damage", ["cut off", "chunk 0"])
def test_a_damaged_reference_is_computed_anew(damage, tmp_path, caplog):
    chunks = text_chunks(byte_tokenizer(), TEXT, context=32)
    path = reference_logits(fake_model, chunks, {}, folder=tmp_path).path
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] if damage == "cut off" else whole[:400] + b"?" + whole[401:])

    again = reference_logits(fake_model, chunks, {}, folder=tmp_path)

    again.check()
    assert path.read_bytes() == whole
    assert damage in caplog.text
