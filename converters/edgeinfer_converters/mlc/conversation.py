"""A chat template as MLC LLM has it: fixed texts before and after each message.

MLC LLM does not run Jinja. But most templates do write fixed texts around the messages, and those
can be read off a conversation of marked messages. What was read off is put together again as
MLC LLM does it; if that is not what the template writes, the result is not used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgeinfer.errors import EdgeInferError
from edgeinfer.tokenizer import ChatTemplate, Tokenizer

# Texts that no template has, and that none changes.
_SYSTEM, _ASKED, _ANSWERED, _ASKED_AGAIN = "Sysmark", "Askmark", "Answermark", "Againmark"
_TALK = (
    {"role": "user", "content": _ASKED},
    {"role": "assistant", "content": _ANSWERED},
    {"role": "user", "content": _ASKED_AGAIN},
)
_TOLD = {"role": "system", "content": _SYSTEM}
_TALKS = (_TALK[:1], _TALK, (*_TALK, *_TALK[1:]))
_PLACE = "{system_message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """The texts around messages, under the names of MLC LLM's conv_template.

    Attributes:
        system_template: with ``{system_message}`` where that goes.
        system_message: the one that is there without another.
        user: before a question.
        assistant: between a question and its answer.
        after_answer: between an answer and what is before the next question.
        lead: before an answer that is there already.
        begin: what follows ``assistant`` where an answer is to be written.
        exact_without_system: it is also what the template writes if no system message is given.
    """

    system_template: str
    system_message: str
    user: str
    assistant: str
    after_answer: str
    lead: str
    begin: str
    exact_without_system: bool = True

    def prompt(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Returns what MLC LLM makes of messages."""
        system = self.system_message
        if messages[0]["role"] == "system":
            system, messages = messages[0]["content"], messages[1:]
        text = self.system_template.replace(_PLACE, system)
        for message in messages:
            answer = message["role"] == "assistant"
            text += self.assistant + self.lead if answer else self.user
            text += message["content"] + (self.after_answer if answer else "")
        return text + self.assistant + self.begin

    def settings(self) -> dict[str, object]:
        """Returns the keys of conv_template that it decides."""
        return {
            "name": "custom",
            "system_template": self.system_template,
            "system_message": self.system_message,
            "system_prefix_token_ids": [],  # a token that begins it is in the texts
            "roles": {"user": self.user, "assistant": self.assistant, "tool": self.user},
            "role_templates": {
                "user": "{user_message}",
                "assistant": self.lead + "{assistant_message}",
                "tool": "{tool_message}",
            },
            "seps": ["", self.after_answer],
            "role_empty_sep": self.begin,
        }


def read_conversation(tokenizer: Tokenizer) -> Conversation | None:
    """Reads the fixed texts of a chat template.

    Returns:
        None if there is no template, or it does more than to write texts around messages.
    """
    if tokenizer.chat_template is None:
        return None
    bos = "" if tokenizer.bos_id is None else tokenizer.token_text(tokenizer.bos_id)
    eos = "" if tokenizer.eos_id is None else tokenizer.token_text(tokenizer.eos_id)

    def render(messages: Sequence[Mapping[str, str]]) -> str | None:
        try:
            template = ChatTemplate(tokenizer.chat_template or "", bos_token=bos, eos_token=eos)
            return template.render(list(messages), add_generation_prompt=True)
        except EdgeInferError:
            return None

    plain = render(_TALK)
    if plain is None:
        return None
    # Not every family has system messages; Gemma's templates refuse them.
    for system, told in (((_TOLD,), render((_TOLD, *_TALK))), ((), plain)):
        found = None if told is None else _read(told, plain, has_system=bool(system))
        if found is not None and all(
            found.prompt([*system, *talk]) == render([*system, *talk]) for talk in _TALKS
        ):
            return found
    return None


def _read(told: str, plain: str, *, has_system: bool) -> Conversation | None:
    text = told
    marks = [_SYSTEM] if has_system else []
    pieces = []
    for mark in [*marks, _ASKED, _ANSWERED, _ASKED_AGAIN]:
        before, found, text = text.partition(mark)
        if not found:
            return None
        pieces.append(before)
    first, answer, again = pieces[-3:]
    user = _common_end([first, again, plain.partition(_ASKED)[0]])
    assistant = _common_start([answer, text])
    start = first.removesuffix(user)
    system = pieces[0] + _PLACE + start if has_system else start + _PLACE
    conversation = Conversation(
        system_template=system,
        system_message="",
        user=user,
        assistant=assistant,
        after_answer=again.removesuffix(user),
        lead=answer.removeprefix(assistant),
        begin=text.removeprefix(assistant),
    )
    return _with_default(conversation, plain) if has_system else conversation


def _with_default(found: Conversation, plain: str) -> Conversation:
    """Finds the system message that the template writes by itself."""
    before, _, after = found.system_template.partition(_PLACE)
    rest = plain.partition(found.user + _ASKED)[0]
    if rest.startswith(before) and rest.endswith(after) and len(rest) >= len(before + after):
        message = rest[len(before) : len(rest) - len(after)]
        changed = replace(found, system_message=message)
        if changed.prompt(_TALK) == plain:
            return changed
    return replace(found, exact_without_system=found.prompt(_TALK) == plain)


def _common_start(texts: Sequence[str]) -> str:
    end = 0
    for letters in zip(*texts, strict=False):
        if len(set(letters)) > 1:
            break
        end += 1
    return texts[0][:end]


def _common_end(texts: Sequence[str]) -> str:
    return _common_start([text[::-1] for text in texts])[::-1]
