"""A fake engine with a scheduler, and tokens for its byte vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from edgeinfer.backends import fake
from edgeinfer.runtime.generator import Task, generate
from edgeinfer.runtime.scheduler import Scheduler
from edgeinfer.runtime.sequence import Sequence
from edgeinfer.types import SamplingParams


class ByteDecoder:
    """The fake vocabulary's StreamDecoder: whole UTF-8 characters, specials say nothing."""

    def __init__(self) -> None:
        self.waiting = b""

    def push(self, token: int) -> str:
        self.waiting += bytes([token]) if token < 256 else b""
        try:
            text = self.waiting.decode()
        except UnicodeDecodeError:
            return ""
        self.waiting = b""
        return text

    def finish(self) -> str:
        return self.waiting.decode(errors="replace")


@dataclass
class Rig:
    """A fake engine with everything it takes to generate."""

    engine: fake.FakeEngine
    scheduler: Scheduler

    def sequence(self) -> Sequence:
        return Sequence(self.engine, self.engine.config.context)

    def task(self, text: str, stop=(), max_tokens=None, **options) -> Task:
        params = options.pop("params", None) or SamplingParams(
            temperature=0, stop=stop, max_tokens=max_tokens
        )
        return Task(
            prompt=[fake.START, *text.encode(), fake.ANSWER],
            params=params,
            decoder=ByteDecoder(),
            end_tokens=frozenset({fake.END}),
            **options,
        )

    def events(self, text: str, sequence=None, **options):
        task = self.task(text, **options)
        return generate(self.scheduler, sequence or self.sequence(), task)


@pytest.fixture
def rig():
    """``rig(reply="Hello")`` makes an engine that answers so, ``rig(None)`` one that babbles."""

    def make(reply: str | None = "Hello, world.", context=512, batch=16, **options) -> Rig:
        answer = None if reply is None else reply.encode()
        backend = fake.FakeBackend(reply=lambda text: answer, **options)
        engine = fake.FakeEngine(backend, context)
        return Rig(engine, Scheduler(engine, batch))

    return make
