"""Saved conversations: what was read is not read again, and only a whole file is believed."""

from __future__ import annotations

import hashlib

import pytest

from edgeinfer.errors import CorruptFileError, NotFoundError, UnsupportedError
from edgeinfer.runtime import saved
from support.fake_model import fake_model


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(bytes(range(256)) * 1000)
    return path


@pytest.fixture
def model(weights):
    with fake_model(lambda text: b"You said: " + text[-5:]) as model:
        model.path = str(weights)
        yield model


def talk(session, text: str):
    return list(session.send(text, temperature=0))[-1].timings


@pytest.fixture
def file(model, tmp_path):
    session = model.session(system="Be brief.")
    talk(session, "Hello there")
    session.save(tmp_path / "talk.session")
    return tmp_path / "talk.session"


def test_a_restored_conversation_goes_on_without_reading_again(model, file):
    straight = model.session(system="Be brief.")
    talk(straight, "Hello there")
    expected = talk(straight, "And now?")

    restored = model.session()
    assert restored.load(file) is True
    found = talk(restored, "And now?")

    assert restored.messages == straight.messages
    assert found.cached_tokens == expected.cached_tokens > 30


def test_another_engine_reads_it_anew(model, file, monkeypatch):
    session = model.session()
    monkeypatch.setattr(type(session._sequence.engine), "state_form", "another")

    assert session.load(file) is False
    assert [m["content"] for m in session.messages] == [
        "Be brief.",
        "Hello there",
        "You said: there",
    ]
    assert talk(session, "And now?").cached_tokens == 0


def test_a_state_that_the_engine_refuses_is_read_anew(model, file, weights):
    found = saved.read(file, model=saved.model_hash(weights))
    broken = saved.Saved(
        messages=found.messages, tokens=found.tokens, form=found.form, state=bytes(found.state)[4:]
    )
    saved.write(file, broken, model=saved.model_hash(weights))

    session = model.session()
    assert session.load(file) is False
    assert talk(session, "And now?").cached_tokens == 0


def test_a_conversation_of_another_model_is_refused(model, file, weights):
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    session = model.session(system="Stay.")

    with pytest.raises(UnsupportedError, match="another model"):
        session.load(file)
    assert [message["content"] for message in session.messages] == ["Stay."]


def test_every_damaged_byte_and_every_cut_is_noticed(model, file):
    whole = file.read_bytes()
    session = model.session(system="Stay.")
    for place in range(0, len(whole), 7):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CorruptFileError):
            session.load(file)
        file.write_bytes(whole[:place])
        with pytest.raises(CorruptFileError):
            session.load(file)
    assert [message["content"] for message in session.messages] == ["Stay."]


def test_the_checksum_covers_a_state_of_many_pieces(weights, tmp_path):
    state = bytes(range(256)) * (9 << 12)  # 9 MiB
    path = tmp_path / "long.session"
    model = saved.model_hash(weights)
    saved.write(path, saved.Saved(messages=[], tokens=[1], state=state), model=model)

    whole = path.read_bytes()
    assert bytes(saved.read(path, model=model).state) == state
    head, pieces = whole[: -32 - len(state)], [state[: 4 << 20], state[4 << 20 : 8 << 20]]
    digests = [hashlib.sha256(part).digest() for part in (head, *pieces, state[8 << 20 :])]
    assert whole[-32:] == hashlib.sha256(b"".join(digests)).digest()
    for place in (len(head), len(head) + (4 << 20), len(whole) - 33):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CorruptFileError):
            saved.read(path, model=model)


@pytest.mark.parametrize(
    "header", [b"", b"[]", b"{}", b"3", b"[" * 9999, b'{"messages": [], "tokens": ["x"]}']
)
def test_a_header_that_makes_no_sense_is_refused_though_its_checksum_fits(file, model, header):
    body = saved.MAGIC + len(header).to_bytes(8, "little") + header
    file.write_bytes(body + hashlib.sha256(hashlib.sha256(body).digest()).digest())

    with pytest.raises(CorruptFileError):
        model.session().load(file)


def test_what_is_not_there_is_not_found(model, tmp_path):
    with pytest.raises(NotFoundError):
        model.session().load(tmp_path / "nothing.session")
    with pytest.raises(NotFoundError):
        model.session().save(tmp_path / "no" / "folder.session")


def test_models_are_told_apart_wherever_they_differ(tmp_path):
    path = tmp_path / "model"
    data = bytearray(8 << 20)
    seen = set()
    for place in (None, 0, len(data) - 1):
        changed = bytearray(data)
        if place is not None:
            changed[place] = 1
        path.write_bytes(changed)
        seen.add(saved.model_hash(path))
    path.write_bytes(data[:-1])
    seen.add(saved.model_hash(path))
    assert len(seen) == 4
