"""Conversations as files."""

from __future__ import annotations

import json

import pytest

from edgeinfer.errors import CorruptFileError, NotFoundError
from edgeinfer.runtime import transcript

MESSAGES = [{"role": "system", "content": "Grüße 😀"}, {"role": "user", "content": "a\nb"}]


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "talk.json"

    transcript.save(path, MESSAGES, model="smollm2")

    assert transcript.load(path) == MESSAGES
    assert json.loads(path.read_text())["model"] == "smollm2"
    assert [entry.name for entry in tmp_path.iterdir()] == ["talk.json"]


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "talk.json"
    transcript.save(path, MESSAGES, model="m")

    with pytest.raises(TypeError):
        transcript.save(path, [{"role": "user", "content": object()}], model="m")

    assert transcript.load(path) == MESSAGES


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "no JSON"),
        ("\ud800", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "messages"),
        ('{"messages": 3}', "messages"),
        ('{"messages": ["hi"]}', "message 0"),
        ('{"messages": [{"role": "user", "content": "a"}, {"role": "x"}]}', "message 1"),
        ('{"messages": [{"role": "user", "content": 7}]}', "content"),
        ('{"messages": [{"role": "user"}]}', "content"),
    ],
)
def test_what_is_no_conversation_is_refused(tmp_path, content, told):
    path = tmp_path / "talk.json"
    path.write_bytes(content.encode(errors="surrogatepass"))

    with pytest.raises(CorruptFileError, match=told):
        transcript.load(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(NotFoundError, match="no such file"):
        transcript.load(tmp_path / "none.json")
