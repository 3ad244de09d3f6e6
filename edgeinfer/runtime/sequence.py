"""One text in the engine: the tokens its cache holds and the ones it waits to read."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Tokens

from edgeinfer.backends.adapters import require_adaptable
from edgeinfer.backends.base import AdapterUse, Engine
from edgeinfer.errors import ContextFullError, UsageError


def common_prefix(a: Tokens[int], b: Tokens[int]) -> int:
    """The number of tokens that two texts begin with alike."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


LARGEST_SCALE = float.fromhex("0x1.fffffep127")  # of float32
SINKS = 4  # first tokens that attention leans on


def shifted(tokens: Tokens[int], context: int) -> list[int]:
    """What stays of a text that fills its context: the first tokens and the last half.

    A model attends to its first tokens whatever they say (attention sinks: Xiao et al.
    2024, arXiv:2309.17453); without them it falls apart.
    """
    last = max(context // 2 - SINKS, 1)
    return [*tokens[:SINKS], *tokens[max(SINKS, len(tokens) - last) :]]


def require_scales(scales: Iterable[float]) -> None:
    """Refuses what is no strength of an adapter.

    Raises:
        UsageError: a scale is no number that can be computed with.
    """
    for scale in scales:
        if not abs(scale) <= LARGEST_SCALE:
            raise UsageError(f"an adapter's scale is {scale}", hint="1 is as it was trained")


class Sequence:
    """Keeps an engine's sequence in step with a text that grows, is cut, or changes.

    ``cached`` are the tokens in the KV cache. It is the truth even after an interrupted
    step: ``feed`` trims the engine to what it keeps of ``cached``.
    """

    def __init__(self, engine: Engine, context: int, adapters: Tokens[AdapterUse] = ()) -> None:
        self.engine = engine
        self.context = context  # tokens
        self.number = engine.open()
        self.cached: list[int] = []
        self.pending: list[int] = []
        self.adapters: tuple[AdapterUse, ...] = ()
        self.adapt(adapters)

    def adapt(self, adapters: Tokens[AdapterUse]) -> None:
        """Computes with these adapters from now on; if they are others, the text is read anew.

        Raises:
            UnsupportedError: the backend has no adapters.
            UsageError: there is no such adapter.
        """
        if self.adapters == tuple(adapters):
            return
        require_scales(scale for _, scale in adapters)
        engine = require_adaptable(self.engine)
        self.rewind(0)
        try:
            engine.set_adapters(self.number, adapters)
        except ValueError as error:
            raise UsageError(str(error)) from error
        self.adapters = tuple(adapters)

    @property
    def room(self) -> int:
        """How many tokens can still be read."""
        return self.context - len(self.cached) - len(self.pending)

    def feed(self, tokens: Tokens[int]) -> int:
        """Makes ``tokens`` the whole text: keeps the common prefix, queues the rest.

        At least the last token is read again, because its logits are wanted.

        Returns:
            How many tokens were kept.

        Raises:
            ContextFullError: the text does not fit; nothing was changed.
        """
        if not len(tokens):
            raise UsageError("the prompt has no tokens", hint="give at least one character")
        if len(tokens) > self.context:
            raise ContextFullError(
                f"the text has {len(tokens)} tokens, the context holds {self.context}",
                hint="shorten it, or ask for a longer context (-c, context=)",
            )
        kept = min(common_prefix(self.cached, tokens), len(tokens) - 1)
        kept = self.engine.trim(self.number, kept)
        del self.cached[kept:]
        self.pending = [int(token) for token in tokens[kept:]]
        return kept

    def push(self, token: int) -> None:
        """Queues one more token; the caller looks at ``room`` first."""
        assert self.room > 0
        self.pending.append(token)

    def rewind(self, length: int) -> None:
        """Forgets what was read after the first ``length`` tokens, and what waits.

        What the engine had to forget besides waits to be read again.
        """
        self.pending.clear()
        if len(self.cached) > length:
            left = self.engine.trim(self.number, length)
            self.pending = self.cached[left:length]
            del self.cached[left:]

    def close(self) -> None:
        """Gives the cache back."""
        self.engine.close(self.number)
