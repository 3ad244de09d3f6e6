"""A backend without a model: everything above ``step`` can be tested against it.

Its vocabulary is the 256 bytes and three special tokens. Its logits are noise that hangs
on every token before, so that a cache which lost or mixed up one token shows; and where a
text has an ``ANSWER`` token, it goes on to say what the ``reply`` function answers to the
text before that token.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeinfer.arch.config import ModelConfig
from edgeinfer.backends.base import Logits, ModelFiles, Slice, Support
from edgeinfer.device.profile import DeviceProfile
from edgeinfer.errors import ClosedError, ContextFullError
from edgeinfer.planner.plan import MemoryPlan

START = 256  # begins a text
ANSWER = 257  # the model speaks from here
END = 258  # ends an answer
VOCAB = 259
WIDTH = 16  # of the hidden states


def config(context: int = 512) -> ModelConfig:
    """The numbers of a model that does not exist."""
    return ModelConfig(
        architecture="fake",
        vocab_size=VOCAB,
        context=context,
        layers=1,
        width=WIDTH,
        heads=1,
        kv_heads=1,
        head_dim=WIDTH,
        ff_width=WIDTH,
        norm_eps=1e-5,
        layer_rope=(-1,),
        layer_window=(0,),
        attention_scale=1.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeBackend:
    """Loads ``FakeEngine``.

    ``reply`` gets the bytes before the ``ANSWER`` token and returns the bytes to say, or
    None to say noise;
    ``seconds_per_token`` makes it as slow as a model.
    """

    reply: Callable[[bytes], bytes | None] = lambda text: b"You said: " + text[-20:]
    seconds_per_token: float = 0.0
    name: str = "fake"
    formats: frozenset[str] = frozenset({"fake"})

    def version(self) -> str:
        """It never changes."""
        return "1"

    def probe(self, device: DeviceProfile) -> Support:
        """Runs anywhere, but is never the first choice."""
        return Support(usable=True, reason="no model, for tests", rank=-1000)

    def load(self, files: ModelFiles, plan: MemoryPlan) -> FakeEngine:
        """Loads nothing."""
        return FakeEngine(self, plan.context)


class FakeEngine:
    """Deterministic logits; counts what it was asked to do."""

    def __init__(self, backend: FakeBackend, context: int) -> None:
        self.config = config(context)
        self.steps: list[list[Slice]] = []  # every batch, for tests to look at
        self._backend = backend
        self._sequences: dict[int, list[int]] | None = {}
        self._opened = 0
        self._lock = threading.Lock()

    def open(self) -> int:
        """As ``Engine.open``."""
        with self._lock:
            sequences = self._live()
            self._opened += 1
            sequences[self._opened] = []
            return self._opened

    def step(self, batch: Sequence[Slice]) -> Logits:
        """As ``Engine.step``."""
        with self._lock:
            rows = [
                self._logits(text[: len(text) - back])
                for text, wanted in self._append(batch)
                for back in reversed(range(wanted))
            ]
        return np.array(rows, np.float32).reshape(len(rows), VOCAB)

    def embed(self, batch: Sequence[Slice]) -> NDArray[np.float32]:
        """As ``Embedder.embed``."""
        with self._lock:
            rows = [
                _noise(text[: len(text) - back], WIDTH)
                for text, wanted in self._append(batch)
                for back in reversed(range(wanted))
            ]
        return np.array(rows, np.float32).reshape(len(rows), WIDTH)

    state_form = "fake"

    def save_state(self, sequence: int) -> bytes:
        """As ``StateKeeper.save_state``."""
        with self._lock:
            return np.array(self._text(sequence), np.int32).tobytes()

    def restore_state(self, sequence: int, state: bytes | memoryview, length: int) -> None:
        """As ``StateKeeper.restore_state``."""
        with self._lock:
            if len(state) != 4 * length or length > self.config.context:
                raise ValueError(f"{len(state)} bytes are no state of {length} tokens")
            self._text(sequence)[:] = np.frombuffer(state, np.int32).tolist()

    def trim(self, sequence: int, length: int) -> int:
        """As ``Engine.trim``."""
        with self._lock:
            text = self._text(sequence)
            if not 0 <= length <= len(text):
                raise ValueError(f"cannot trim a sequence of {len(text)} tokens to {length}")
            del text[length:]
            return length

    def close(self, sequence: int) -> None:
        """As ``Engine.close``."""
        with self._lock:
            self._text(sequence)
            del self._live()[sequence]

    def shutdown(self) -> None:
        """As ``Engine.shutdown``."""
        self._sequences = None

    def _live(self) -> dict[int, list[int]]:
        if self._sequences is None:
            raise ClosedError("the engine is closed")
        return self._sequences

    def _text(self, sequence: int) -> list[int]:
        sequences = self._live()
        if sequence not in sequences:
            raise ClosedError(f"sequence {sequence} is closed")
        return sequences[sequence]

    def _append(self, batch: Sequence[Slice]) -> list[tuple[list[int], int]]:
        """Appends the slices; returns each one's text so far and how many rows it wants."""
        self._check(batch)
        self.steps.append(list(batch))
        texts = []
        for part in batch:
            time.sleep(self._backend.seconds_per_token * len(part.tokens))
            text = self._text(part.sequence)
            text.extend(int(token) for token in part.tokens)
            texts.append((list(text), part.wants_logits))
        return texts

    def _check(self, batch: Sequence[Slice]) -> None:
        """Finds everything that can be wrong before any text is changed."""
        if len({part.sequence for part in batch}) < len(batch):
            raise ValueError("a sequence occurs twice in a batch")
        for part in batch:
            if len(self._text(part.sequence)) + len(part.tokens) > self.config.context:
                raise ContextFullError(f"the context holds {self.config.context} tokens")
            if not part.tokens or not 0 <= part.wants_logits <= len(part.tokens):
                raise ValueError(f"{part.wants_logits} rows wanted of {len(part.tokens)} tokens")
            if not all(0 <= token < VOCAB for token in part.tokens):
                raise ValueError(f"a token is outside the vocabulary of {VOCAB}")

    def _logits(self, text: list[int]) -> NDArray[np.float32]:
        logits = _noise(text, VOCAB)
        if ANSWER not in text:
            return logits
        start = len(text) - text[::-1].index(ANSWER)
        answer = self._backend.reply(bytes(t for t in text[: start - 1] if t < START))
        if answer is not None:
            said = bytes(t for t in text[start:] if t < START)
            goes_on = answer.startswith(said) and len(said) < len(answer)
            logits[answer[len(said)] if goes_on else END] += 100
        return logits


def _noise(text: list[int], size: int) -> NDArray[np.float32]:
    """Standard normal numbers that depend on all tokens and their order."""
    digest = zlib.crc32(np.array(text, np.int32).tobytes())
    return np.random.default_rng(digest).standard_normal(size, np.float32)
