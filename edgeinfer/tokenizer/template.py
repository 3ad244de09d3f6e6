"""A conversation as the text that a model was trained on: its chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from edgeinfer.errors import CorruptFileError, NotFoundError, UsageError
from edgeinfer.types import Message

if TYPE_CHECKING:
    from edgeinfer.tokenizer.sandbox import Sandbox

LONGEST_SOURCE = 48 * 1024
_DEEPEST_INPUT = 64
# Arguments of transformers' apply_chat_template that are no variables of a template, and
# names that a template relies on.
_REFUSED = frozenset(
    [
        "chat_template",
        "conversation",
        "messages",
        "tools",
        "add_generation_prompt",
        "bos_token",
        "eos_token",
        "tokenize",
        "padding",
        "truncation",
        "max_length",
        "return_tensors",
        "return_dict",
        "return_assistant_tokens_mask",
        "continue_final_message",
        "tokenizer_kwargs",
        "raise_exception",
        "strftime_now",
        "namespace",
        "dict",
        "range",
        "cycler",
        "joiner",
        "self",
        "loop",
        "caller",
    ]
)
# Names that reasoning is passed under; templates read the first, some the second.
_REASONING = ("reasoning_content", "thinking", "reasoning")


class ChatTemplate:
    """A compiled Jinja chat template, rendering as transformers' ``apply_chat_template``.

    Templates come with models and are not trusted: they run in a sandbox with a budget of
    time and memory.

    Args:
        source: the template.
        bos_token: text of the token that begins a sequence; templates may write it.
        eos_token: text of the token that ends one.

    Raises:
        NotFoundError: there is no template.
        CorruptFileError: it is no valid template, or asks for what none may have.
    """

    def __init__(self, source: str | None, bos_token: str = "", eos_token: str = "") -> None:
        if not source:
            raise NotFoundError(
                "the model has no chat template",
                hint="it may not be made for chat; complete text with it instead",
            )
        if len(source) > LONGEST_SOURCE:
            raise CorruptFileError(f"unsafe chat template: {len(source)} characters long")
        self.source = source
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        from jinja2.exceptions import SecurityError, TemplateSyntaxError

        try:
            self._template = _sandbox().from_string(source)
        except SecurityError as error:
            raise CorruptFileError(f"unsafe chat template: {error}") from None
        except TemplateSyntaxError as error:
            raise CorruptFileError(f"chat template, line {error.lineno}: {error.message}") from None
        except (RecursionError, MemoryError, SyntaxError, ValueError) as error:
            raise CorruptFileError(
                f"unsafe chat template: it cannot be compiled ({type(error).__name__})"
            ) from None

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **kwargs: Any,
    ) -> str:
        """Returns the text of a conversation.

        Args:
            messages: each with a "role", most with "content"; others as templates read them
                ("tool_calls", "reasoning_content", ...).
            tools: JSON schemas of the functions that the model may call.
            add_generation_prompt: ends with the beginning of the assistant's answer.
            kwargs: further variables, such as ``enable_thinking``.

        Raises:
            UsageError: the template refuses or cannot render the messages.
            CorruptFileError: the template is unsafe.
        """
        from jinja2.exceptions import SecurityError

        from edgeinfer.tokenizer import budget
        from edgeinfer.tokenizer.sandbox import RaisedError

        refused = sorted(name for name in kwargs if name in _REFUSED or name.startswith("_"))
        if refused:
            raise UsageError(f"{refused[0]!r} is not a variable of a chat template")
        size = _Size()
        variables = {
            "messages": [_with_reasoning(_plain_message(message, size)) for message in messages],
            "tools": None if tools is None else [_plain(tool, size) for tool in tools],
            "documents": None,
            "add_generation_prompt": bool(add_generation_prompt),
            **self._tokens,
            **{name: _plain(value, size) for name, value in kwargs.items()},
        }
        budget.begin(size.octets)
        try:
            return self._template.render(variables)
        except RaisedError as error:
            raise UsageError(f"the chat template refuses the messages: {error.message}") from None
        except SecurityError as error:
            raise CorruptFileError(f"unsafe chat template: {error}") from None
        except (RecursionError, MemoryError) as error:
            raise CorruptFileError(f"unsafe chat template: {type(error).__name__}") from None
        except Exception as error:
            raise UsageError(
                f"the chat template cannot render these messages: {type(error).__name__}: "
                f"{str(error)[:500]}"
            ) from error


@cache
def _sandbox() -> Sandbox:
    from edgeinfer.tokenizer.sandbox import Sandbox

    return Sandbox()


class _Size:
    """Adds up the bytes of the input."""

    octets = 0


def _plain_message(message: Message, size: _Size) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise UsageError(f"a message is a {type(message).__name__}, expected a mapping")
    plain: dict[str, Any] = _plain(message, size)
    return plain


def _plain(value: Any, size: _Size, depth: int = 0) -> Any:
    """Copies a value as plain JSON types: a template sees no objects of the caller."""
    if depth > _DEEPEST_INPUT:
        raise UsageError("a message or tool is nested too deep")
    size.octets += 16
    if value is None or type(value) in (bool, int, float):
        return value
    if isinstance(value, str):
        size.octets += len(value)
        return str.__str__(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, size, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, size, depth + 1) for item in value]
    raise UsageError(
        f"a {type(value).__name__} in a message or tool; only JSON types can be rendered"
    )


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """Passes reasoning under each name that templates read."""
    given = [message[name] for name in _REASONING if message.get(name) is not None]
    if not given:
        return message
    return {"thinking": given[0], **message, "reasoning_content": given[0]}
