"""Session: a conversation that keeps what it has read in the cache.

Every turn renders all messages anew; the tokens that are the same as before, usually all
but the last question, stay in the cache and only the rest is read. Nothing is ever cut to
make it fit: a conversation that outgrows the context is an error that says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeinfer.backends.base import AdapterUse, StateKeeper
from edgeinfer.errors import ContextFullError, UsageError
from edgeinfer.types import FinishReason, Message, Timings, TokenEvent

if TYPE_CHECKING:
    from edgeinfer.runtime.model import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Where a conversation stands."""

    turns: int  # answers so far
    context: int  # tokens that fit
    used: int  # tokens in the cache
    new_tokens: int  # of all answers
    last: Timings | None  # of the last answer


class Session:
    """Messages, and the sequence that has read them.

    Attributes:
        messages: the conversation; an answer is added when its stream ends, also when it
            was stopped in the middle.
    """

    def __init__(
        self, model: Model, *, system: str | None = None, messages: Iterable[Message] = ()
    ) -> None:
        self.model = model
        self.messages: list[Message] = [dict(message) for message in messages]
        if system is not None:
            self.set_system(system)
        self._sequence = model.open_sequence()
        self._last: Timings | None = None
        self._turns = 0
        self._new_tokens = 0

    def set_system(self, text: str) -> None:
        """Sets the system message, or removes it if the text is empty."""
        if self.messages and self.messages[0].get("role") == "system":
            del self.messages[0]
        if text:
            self.messages.insert(0, {"role": "system", "content": text})

    def set_adapters(self, adapters: Sequence[AdapterUse]) -> None:
        """Answers with these adapters from now on; what was said stays, and is read anew.

        Args:
            adapters: numbers that ``Model.add_adapter`` gave, each with a scale.

        Raises:
            UsageError: there is no such adapter.
        """
        self._sequence.adapt(adapters)

    def clear(self) -> None:
        """Forgets the conversation, but not the system message."""
        self.messages = [m for m in self.messages[:1] if m.get("role") == "system"]

    def send(
        self,
        text: str,
        *,
        template_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Iterator[TokenEvent]:
        """Asks, and streams the answer.

        Args:
            text: the user's message.
            template_options: what else the template takes.
            options: as in ``Model.generate``.

        Raises:
            ContextFullError: the question does not fit; the conversation is as before.
            UsageError: the text is empty, or an option makes no sense.
        """
        if not text.strip():
            raise UsageError("the message is empty")
        asked = [*self.messages, {"role": "user", "content": text}]
        tokens = self.model.chat_tokens(asked, template_options=template_options)
        room = self.model.plan.context
        if len(tokens) >= room:  # an answer needs room for a token too
            raise ContextFullError(
                f"the context is full: the conversation has {len(tokens)} tokens with this "
                f"message, the context holds {room}",
                hint="/clear begins anew; -c asks for a longer context",
            )
        return self._answer(asked, self.model.stream(self._sequence, tokens, options))

    def _answer(self, asked: list[Message], events: Iterator[TokenEvent]) -> Iterator[TokenEvent]:
        text, ended = "", False
        try:
            for event in events:
                text += event.text
                if event.timings is not None:
                    self._note(event.timings)
                    ended = event.finish_reason is not FinishReason.CANCELLED
                yield event
        finally:
            # A question whose answer never began is as if it had not been asked.
            if text or ended:
                self.messages = [*asked, {"role": "assistant", "content": text}]

    def _note(self, timings: Timings) -> None:
        self._last = timings
        self._turns += 1
        self._new_tokens += timings.new_tokens

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the conversation and what the model has read of it.

        Raises:
            NotFoundError: the folder does not exist.
            EdgeInferError: the file cannot be written.
        """
        from edgeinfer.runtime import saved

        engine, number = self._sequence.engine, self._sequence.number
        form, state = "", memoryview(b"")
        # What adapters have computed is of no use without them, so it is not kept.
        if isinstance(engine, StateKeeper) and not self._sequence.adapters:
            form, state = engine.state_form, memoryview(engine.save_state(number))
        record = saved.Saved(
            messages=self.messages, tokens=list(self._sequence.cached), form=form, state=state
        )
        saved.write(path, record, model=saved.model_hash(self.model.path))

    def load(self, path: str | os.PathLike[str]) -> bool:
        """Goes on with a saved conversation in place of this one.

        Returns:
            True if what was read then need not be read again. It must be where another
            backend, version or cache type saved it, or the context is shorter now.

        Raises:
            NotFoundError: there is no such file.
            CorruptFileError: it is damaged; the conversation is as before.
            UnsupportedError: it is of another model; the conversation is as before.
        """
        from edgeinfer.runtime import saved

        found = saved.read(path, model=saved.model_hash(self.model.path))
        sequence = self._sequence
        sequence.rewind(0)
        self.messages = found.messages
        engine = sequence.engine
        fits = found.tokens and len(found.tokens) <= sequence.context
        if sequence.adapters or not (
            fits and isinstance(engine, StateKeeper) and found.form == engine.state_form
        ):
            return False
        try:
            engine.restore_state(sequence.number, found.state, len(found.tokens))
        except ValueError:  # it is read anew
            return False
        sequence.cached = list(found.tokens)
        return True

    @property
    def stats(self) -> Stats:
        """Where the conversation stands."""
        return Stats(
            turns=self._turns,
            context=self.model.plan.context,
            used=len(self._sequence.cached),
            new_tokens=self._new_tokens,
            last=self._last,
        )

    def close(self) -> None:
        """Gives the cache back."""
        self._sequence.close()
