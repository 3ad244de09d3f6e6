"""conv_template: put together as MLC LLM does it, it is what the chat template writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgeinfer.tokenizer import ChatTemplate, Tokenizer, load_tokenizer
from edgeinfer_converters.mlc.conversation import read_conversation
from edgeinfer_converters.mlc.convert import convert
from support import mlc_folder, tiny
from support.tiny_tokenizer import write_tokenizer

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}" + CHATML
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}"
    "{% endif %}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' "
    "else m.role) + '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>"
    "\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
THINKS = CHATML.replace("assistant\n' }}{% endif", "assistant\n<think>\n\n</think>\n\n' }}{% endif")
INSTRUCTED = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + "
    "' [/INST]' }}{% elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}"
    "{% else %}{{ raise_exception('no system') }}{% endif %}{% endfor %}"
)
SYSTEM = {"role": "system", "content": "Be brief."}
TALK = [
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "Two."},
    {"role": "user", "content": "Three?"},
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return load_tokenizer(folder)


def rendered(source: str, messages: list[dict[str, str]]) -> str:
    template = ChatTemplate(source, bos_token="<|endoftext|>", eos_token="<|im_end|>")
    return template.render(messages, add_generation_prompt=True)


@pytest.mark.parametrize(
    ("source", "system"),
    [
        (CHATML, True),
        (DEFAULT_SYSTEM, True),
        (LLAMA3, True),
        (THINKS, True),
        (GEMMA, False),
        (INSTRUCTED, False),
    ],
    ids=["chatml", "default system", "llama 3", "thinks", "gemma", "instructed"],
)
def test_prompts_are_those_of_the_template(source: str, system: bool, tokenizer: Tokenizer) -> None:
    found = read_conversation(replace(tokenizer, chat_template=source))

    assert found is not None
    messages = [SYSTEM, *TALK] if system else TALK
    assert found.prompt(messages) == rendered(source, messages)
    assert found.prompt(messages[:-2]) == rendered(source, messages[:-2])
    if found.exact_without_system:
        assert found.prompt(TALK) == rendered(source, TALK)


def test_a_default_system_message_is_found(tokenizer: Tokenizer) -> None:
    found = read_conversation(replace(tokenizer, chat_template=DEFAULT_SYSTEM))

    assert found is not None
    assert found.system_message == "You help."
    assert found.exact_without_system


@pytest.mark.parametrize(
    "source",
    [
        None,
        "{% for m in messages %}{{ loop.index ~ m.content }}{% endfor %}",
        "{{ messages | length }}",
        "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
        "{{ raise_exception('not for chat') }}",
    ],
    ids=["none", "numbered", "no content", "changed", "raises"],
)
def test_other_templates_are_not_guessed(source: str | None, tokenizer: Tokenizer) -> None:
    assert read_conversation(replace(tokenizer, chat_template=source)) is None


def test_the_folder_has_it(tmp_path: Path) -> None:
    folder = tiny.write(tiny.BY_NAME["llama-gqa64-tied"], tmp_path / "model")
    (folder / "chat_template.jinja").write_text(CHATML)

    report = convert(folder, tmp_path / "out", quant="q0f16")

    template = mlc_folder.read(tmp_path / "out").config["conv_template"]
    assert template["roles"]["user"] == "<|im_start|>user\n"
    assert template["roles"]["assistant"] == "<|im_end|>\n<|im_start|>assistant\n"
    assert template["seps"] == ["", "<|im_end|>\n"]
    assert template["stop_token_ids"] == [0, 2]
    assert report.notes == ["MLC LLM writes an empty system message where none is given"]
