"""The conversation loop: messages to answers, and the commands that begin with a slash."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from edgeinfer.cli import ui
from edgeinfer.cli._answer import show_answer, stats_line
from edgeinfer.cli._input import Input
from edgeinfer.cli._model_options import SAMPLING_FIELDS
from edgeinfer.errors import EdgeInferError, UsageError
from edgeinfer.types import FinishReason, SamplingParams, TokenEvent

if TYPE_CHECKING:
    from edgeinfer.runtime.model import Model

_SHORT = {"temp": "temperature", "typical": "typical_p", "n": "max_tokens"}


@dataclass(frozen=True, slots=True)
class Command:
    """What begins with a slash."""

    run: Callable[[str], None]
    argument: str
    help: str


class Repl:
    """One conversation with a model.

    Attributes:
        commands: by name, slash included.
    """

    def __init__(self, model: Model, *, system: str | None, sampling: dict[str, Any]) -> None:
        self.model = model
        self.session = model.session(system=system)
        self.sampling = sampling
        self.commands: dict[str, Command] = {
            "/help": Command(self._help, "", "this list"),
            "/clear": Command(self._clear, "", "begins anew; keeps the system message"),
            "/system": Command(self._system, "[TEXT]", "shows or sets the system message"),
            "/set": Command(self._set, "[NAME VALUE]", "how tokens are chosen: /set temp 0"),
            "/save": Command(
                self._save, "FILE", "writes it as JSON; to a .session, with all that was read"
            ),
            "/load": Command(self._load, "FILE", "goes on with a saved conversation"),
            "/stats": Command(self._stats, "", "what the conversation and the last answer took"),
            "/bye": Command(self._bye, "", "leaves"),
        }
        self._aliases = {"/?": "/help", "/exit": "/bye", "/quit": "/bye"}

    def converse(self, source: Input) -> None:
        """Talks to a person until they leave; errors are told and the talk goes on."""
        while True:
            try:
                text = source.read()
            except KeyboardInterrupt:
                ui.note("Ctrl-D or /bye leaves.")
                continue
            except EOFError:
                return
            try:
                self.handle(text)
            except EOFError:
                return
            except EdgeInferError as error:
                ui.error(error.message, error.hint)

    def answer_all(self, source: Input) -> None:
        """Answers a pipe; the first error, or Ctrl-C, ends it."""
        while True:
            try:
                last = self.handle(source.read())
            except EOFError:
                return
            if last is not None and last.finish_reason is FinishReason.CANCELLED:
                raise KeyboardInterrupt

    def handle(self, text: str) -> TokenEvent | None:
        """Runs a command, or answers a message and returns its last event.

        Raises:
            EOFError: the command was to leave.
            KeyboardInterrupt: Ctrl-C came twice during an answer.
        """
        if not text.strip():
            return None
        name, _, argument = text.strip().partition(" ")
        if name.startswith("/") and "\n" not in text:
            name = self._aliases.get(name, name)
            if name not in self.commands:
                raise UsageError(f"no command {name}", hint="/help lists the commands")
            self.commands[name].run(argument.strip())
            return None
        last = show_answer(lambda **given: self.session.send(text, **given), **self.sampling)
        if last.finish_reason is FinishReason.CANCELLED:
            ui.note("stopped")
        return last

    # ---- commands ------------------------------------------------------------------------

    def _help(self, argument: str) -> None:
        for name, command in self.commands.items():
            ui.emit(f"{name + ' ' + command.argument:22}{command.help}")
        ui.emit('""" ... """ or a \\ at the end of a line makes a message of several lines.')
        ui.emit("Ctrl-C stops an answer, Ctrl-D leaves.")

    def _clear(self, argument: str) -> None:
        self.session.clear()
        ui.note("The conversation begins anew.")

    def _system(self, argument: str) -> None:
        if argument:
            self.session.set_system(argument)
            return
        first = self.session.messages[:1]
        is_system = bool(first) and first[0]["role"] == "system"
        ui.emit(first[0]["content"] if is_system else "No system message.")

    def _set(self, argument: str) -> None:
        from edgeinfer.runtime.sampler import check_params

        if not argument:
            params = self._params(self.sampling)
            for field in fields(SamplingParams):
                if field.name in SAMPLING_FIELDS:
                    ui.emit(f"{field.name} {getattr(params, field.name)}")
            return
        name, _, value = argument.partition(" ")
        name = _SHORT.get(name, name).replace("-", "_")
        if name not in SAMPLING_FIELDS:
            raise UsageError(f"nothing is called {name}", hint="/set lists what there is")
        changed = {**self.sampling, name: _number(name, value.strip())}
        check_params(self._params(changed), self.model.tokenizer.vocab_size)
        self.sampling = changed

    def _params(self, given: Mapping[str, Any]) -> SamplingParams:
        """The model's sampling with what was given; how to generate is no part of it."""
        known = {field.name for field in fields(SamplingParams)}
        return replace(self.model.sampling, **{k: v for k, v in given.items() if k in known})

    def _save(self, argument: str) -> None:
        from edgeinfer.runtime import transcript

        if _file(argument).endswith(".session"):
            self.session.save(argument)
        else:
            transcript.save(argument, self.session.messages, model=self.model.reference)
        ui.note(f"{len(self.session.messages)} messages saved.")

    def _load(self, argument: str) -> None:
        from edgeinfer.runtime import saved, transcript

        if saved.is_saved(_file(argument)):
            if not self.session.load(argument):
                ui.note("It was saved by another engine, and is read again.")
        else:
            self.session.messages = transcript.load(argument)
        ui.note(f"{len(self.session.messages)} messages loaded.")

    def _stats(self, argument: str) -> None:
        stats = self.session.stats
        ui.emit(f"turns {stats.turns}, tokens answered {stats.new_tokens}")
        ui.emit(f"context {stats.used} of {stats.context} tokens used")
        if stats.last is not None:
            read = stats.last.prompt_tokens - stats.last.cached_tokens
            ui.emit(
                f"last prompt {stats.last.prompt_tokens} tokens: "
                f"{stats.last.cached_tokens} cached, {read} new"
            )
            ui.emit(stats_line(stats.last))

    def _bye(self, argument: str) -> None:
        raise EOFError


def _number(name: str, text: str) -> int | float | None:
    """The value of a sampling field."""
    if text in ("none", "None") and name in ("seed", "max_tokens"):
        return None
    try:
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    except ValueError:
        raise UsageError(f"{name} takes a number, not {text!r}") from None


def _file(argument: str) -> str:
    if not argument:
        raise UsageError("which file?", hint="/save FILE, /load FILE")
    return argument
