"""``edgeinfer tokenize``: text to ids and back, over a tiny vocabulary on disk."""

from __future__ import annotations

import json

import pytest

from support.fake_model import byte_tokenizer


@pytest.fixture(autouse=True)
def bytes_are_tokens(monkeypatch):
    from types import SimpleNamespace

    import edgeinfer.tokenizer
    from edgeinfer.cli import _fetch

    monkeypatch.setattr(_fetch, "fetch", lambda *a, **k: SimpleNamespace(path="fake"))
    monkeypatch.setattr(edgeinfer.tokenizer, "load_tokenizer", lambda path: byte_tokenizer())


def test_a_table(edgeinfer):
    outcome = edgeinfer("tokenize", "m", "a b")

    assert outcome.stdout == "id  text\n97  'a'\n32  ' '\n98  'b'\n"
    assert outcome.stderr == "3 tokens\n"


def test_ids(edgeinfer):
    assert edgeinfer("tokenize", "m", "--ids", "a<|end|>").stdout == "97 258\n"
    assert edgeinfer("tokenize", "m", "--ids", "--literal", "<|").stdout == "60 124\n"


def test_json(edgeinfer):
    record = json.loads(edgeinfer("tokenize", "m", "--json", "é").stdout)

    assert record == {"tokens": [0xC3, 0xA9], "pieces": ["\ufffd", "\ufffd"], "count": 2}


def test_text_from_standard_input(edgeinfer, piped):
    piped("ab\n")

    assert edgeinfer("tokenize", "m", "--ids").stdout == "97 98 10\n"


@pytest.mark.parametrize("text", ["104 105", "[104, 105]", "104,105"])
def test_decode(edgeinfer, text):
    assert edgeinfer("tokenize", "m", "--decode", text).stdout == "hi\n"
    record = json.loads(edgeinfer("tokenize", "m", "--decode", "--json", text).stdout)
    assert record == {"tokens": [104, 105], "text": "hi"}


@pytest.mark.parametrize("text", ["a b", "1 2x"])
def test_what_is_no_id_is_a_usage_error(edgeinfer, text):
    assert edgeinfer("tokenize", "m", "--decode", text).exit_code == 2


def test_an_id_outside_the_vocabulary_is_a_usage_error(edgeinfer):
    assert edgeinfer("tokenize", "m", "--decode", "99999").exit_code == 2
