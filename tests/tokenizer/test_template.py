"""Conversations become the text that transformers makes of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from edgeinfer.errors import CorruptFileError, NotFoundError, UsageError
from edgeinfer.tokenizer import ChatTemplate

DATA = os.environ.get("EDGEINFER_TEST_DATA")
TEMPLATES = sorted(Path(DATA, "templates").glob("*.jinja")) if DATA else []

HELLO = [{"role": "user", "content": "Hi"}]
SYSTEM = {"role": "system", "content": "Be brief & <kind>."}
USER = {"role": "user", "content": "What's the weather in “Paris”? \n\n"}
ANSWER = {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nSunny. ☀️"}
REASONED = {"role": "assistant", "content": "Sunny.", "reasoning_content": "Let me see."}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "id": "abcdef123",
            "type": "function",
            "function": {"name": "weather", "arguments": {"city": "Zürich", "days": 2}},
        }
    ],
}
RESULT = {
    "role": "tool",
    "name": "weather",
    "tool_call_id": "abcdef123",
    "content": '{"sky": "blue"}',
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Tells <the> weather's state — everywhere.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Where"},
                    "days": {"type": "integer", "description": "How long"},
                },
                "required": ["city"],
            },
            "return": {"type": "string", "description": "The weather"},
        },
    }
]
CONVERSATIONS: dict[str, dict[str, Any]] = {
    "one question": {"messages": [USER]},
    "system": {"messages": [SYSTEM, USER]},
    "no prompt": {"messages": [SYSTEM, USER], "add_generation_prompt": False},
    "many turns": {"messages": [SYSTEM, USER, ANSWER, USER, ANSWER, USER]},
    "no system": {"messages": [USER, ANSWER, USER]},
    "tools": {"messages": [SYSTEM, USER], "tools": TOOLS},
    "tool call": {"messages": [SYSTEM, USER, CALL, RESULT], "tools": TOOLS},
    "after a tool": {"messages": [USER, CALL, RESULT, REASONED, USER], "tools": TOOLS},
    "tool call alone": {"messages": [USER, CALL, RESULT]},
    "reasoning": {"messages": [USER, REASONED, USER]},
    "thinking on": {"messages": [USER], "enable_thinking": True},
    "thinking off": {"messages": [SYSTEM, USER, REASONED, USER], "enable_thinking": False},
    "effort": {"messages": [USER], "reasoning_effort": "high"},
    "wrong order": {"messages": [ANSWER, ANSWER, SYSTEM]},
    "unknown role": {"messages": [{"role": "narrator", "content": "Once"}]},
}


@pytest.mark.peer
@pytest.mark.skipif(not TEMPLATES, reason="EDGEINFER_TEST_DATA is not set")
@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_renders_as_transformers_does(path: Path, name: str) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    source = path.read_text()
    peer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE()), bos_token="<s>", eos_token="</s>"
    )
    conversation = {"add_generation_prompt": True, **CONVERSATIONS[name]}

    def expected() -> str:
        # The templates change no message, but a copy is a copy.
        return peer.apply_chat_template(  # type: ignore[no-any-return]
            json.loads(json.dumps(conversation["messages"])),
            chat_template=source,
            tokenize=False,
            **{key: value for key, value in conversation.items() if key != "messages"},
        )

    template = ChatTemplate(source, bos_token="<s>", eos_token="</s>")
    try:
        text = expected()
    except Exception as refusal:
        with pytest.raises(UsageError) as error:
            template.render(**conversation)
        assert str(refusal) in error.value.message
    else:
        assert template.render(**conversation) == text


def test_writes_json_as_it_is() -> None:
    template = ChatTemplate("{{ tools | tojson }}|{{ tools[0] | tojson(indent=2) }}")

    text = template.render(HELLO, tools=[{"b": "<é'\">", "a": 1}])

    assert text == '[{"b": "<é\'\\">", "a": 1}]|{\n  "b": "<é\'\\">",\n  "a": 1\n}'


def test_white_space_around_blocks_is_trimmed() -> None:
    template = ChatTemplate("a\n  {% if true %}\nb\n  {% endif %}\nc")

    assert template.render(HELLO) == "a\nb\nc"


def test_has_loop_controls_and_generation_blocks() -> None:
    template = ChatTemplate(
        "{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}"
        "{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    )

    assert template.render(HELLO * 5) == "HiHi"


def test_the_refusal_of_a_template_is_told() -> None:
    template = ChatTemplate("{{ raise_exception('System role not supported') }}")

    with pytest.raises(UsageError, match="System role not supported"):
        template.render(HELLO)


@pytest.mark.parametrize("name", ["tokenize", "chat_template", "raise_exception", "_x"])
def test_arguments_that_are_no_variables_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=name):
        ChatTemplate("{{ messages }}").render(HELLO, **{name: True})


def test_objects_do_not_reach_a_template() -> None:
    with pytest.raises(UsageError, match="object"):
        ChatTemplate("{{ messages }}").render([{"role": "user", "content": object()}])


@pytest.mark.parametrize("source", [None, ""])
def test_no_template_is_never_replaced_by_another(source: str | None) -> None:
    with pytest.raises(NotFoundError, match="no chat template") as error:
        ChatTemplate(source)
    assert error.value.hint


def test_a_broken_template_names_the_line() -> None:
    with pytest.raises(CorruptFileError, match="line 2"):
        ChatTemplate("fine\n{% if %}")
