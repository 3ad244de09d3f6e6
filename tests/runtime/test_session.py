"""A conversation: what it keeps, what it says, where it ends."""

from __future__ import annotations

import pytest

from edgeinfer.errors import ContextFullError, UsageError
from edgeinfer.types import FinishReason
from support.fake_model import fake_model


def say(session, text, **options):
    events = list(session.send(text, **options))
    return "".join(event.text for event in events)


def test_an_answer_joins_the_messages():
    session = fake_model("Hello.").session(system="Be brief.")

    assert say(session, "Hi") == "Hello."
    assert session.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
    ]


def test_the_second_turn_reads_only_what_is_new():
    model = fake_model("Hello.")
    session = model.session()
    say(session, "first question")

    say(session, "second")

    last = session.stats.last
    # The end token was drawn but not read, so it is new with the second question.
    assert last.prompt_tokens - last.cached_tokens == 1 + len("[user]second") + 1
    assert last.cached_tokens == 1 + len("[user]first question") + 1 + len("Hello.")


def test_what_was_cached_makes_no_difference_to_the_answer():
    def echo(text: bytes) -> bytes:
        return b"%d bytes" % len(text)

    session = fake_model(echo).session()
    answers = [say(session, text) for text in ("a", "bb", "ccc")]

    fresh = []
    for count in range(3):
        again = fake_model(echo).session()
        again.messages = session.messages[: 2 * count]
        fresh.append(say(again, ("a", "bb", "ccc")[count]))
    assert answers == fresh


def test_stats_count_turns_and_tokens():
    session = fake_model("12345").session()
    for text in ("a", "b"):
        say(session, text)

    stats = session.stats

    assert (stats.turns, stats.new_tokens, stats.context) == (2, 10, 512)
    assert stats.used == stats.last.prompt_tokens + 5


def test_a_full_context_is_an_error_and_the_conversation_is_as_before():
    session = fake_model("ok", context=40).session()
    say(session, "short")
    before = list(session.messages)

    with pytest.raises(ContextFullError, match=r"has \d+ tokens .* holds 40") as caught:
        session.send("x" * 40)

    assert session.messages == before
    assert "/clear" in caught.value.hint
    assert say(session, "on") == "ok"


def test_an_answer_that_fills_the_context_is_kept_and_says_so():
    session = fake_model("y" * 100, context=30).session()

    events = list(session.send("hi"))

    assert events[-1].finish_reason is FinishReason.CONTEXT
    assert session.messages[-1]["content"] == "".join(event.text for event in events)
    assert set(session.messages[-1]["content"]) == {"y"}


def test_a_stopped_answer_is_kept():
    session = fake_model("Hello, world.").session()
    stream = session.send("hi")
    assert "".join(next(stream).text for _ in range(5)) == "Hello"

    stream.close()

    assert session.messages[-1] == {"role": "assistant", "content": "Hello"}
    assert say(session, "go on") == "Hello, world."


def test_a_question_whose_answer_never_began_was_not_asked():
    session = fake_model("Hello").session()

    events = list(session.send("hi", is_cancelled=lambda: True))

    assert events[-1].finish_reason is FinishReason.CANCELLED
    assert session.messages == []


def test_an_empty_answer_is_an_answer():
    session = fake_model("").session()

    say(session, "hi")

    assert session.messages[-1] == {"role": "assistant", "content": ""}


def test_clear_keeps_the_system_message():
    session = fake_model().session(system="Be brief.")
    say(session, "hi")

    session.clear()

    assert session.messages == [{"role": "system", "content": "Be brief."}]


def test_the_system_message_can_change_and_go():
    session = fake_model().session(system="one")
    say(session, "hi")
    session.set_system("two")
    assert [m["content"] for m in session.messages if m["role"] == "system"] == ["two"]

    session.set_system("")

    assert session.messages[0]["role"] == "user"


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_message_is_an_error(text):
    with pytest.raises(UsageError, match="empty"):
        fake_model().session().send(text)
