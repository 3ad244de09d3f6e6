"""A Model over the fake backend, with a real tokenizer for its byte vocabulary."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgeinfer.backends import fake
from edgeinfer.planner.plan import MemoryPlan
from edgeinfer.runtime.model import Model, Parts
from edgeinfer.tokenizer import ChatTemplate, Tokenizer
from edgeinfer.tokenizer.from_gguf import from_gguf
from edgeinfer.types import SamplingParams

# What was said is rendered as what was read, so that a conversation keeps its prefix.
TEMPLATE = (
    "<|start|>{% for m in messages %}"
    "{% if m['role'] == 'assistant' %}<|answer|>{{ m['content'] }}<|end|>"
    "{% else %}[{{ m['role'] }}]{{ m['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|answer|>{% endif %}"
)


def byte_tokenizer() -> Tokenizer:
    """Token n is byte n; then <|start|>, <|answer|>, <|end|>."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    written = {byte: chr(byte) for byte in printable}
    written |= {byte: chr(256 + place) for place, byte in enumerate(others)}
    return from_gguf(
        {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "gpt-2",
            "tokenizer.ggml.tokens": [written[byte] for byte in range(256)]
            + ["<|start|>", "<|answer|>", "<|end|>"],
            "tokenizer.ggml.token_type": np.array([1] * 256 + [3] * 3, np.int32),
            "tokenizer.ggml.merges": [],
            "tokenizer.ggml.bos_token_id": fake.START,
            "tokenizer.ggml.eos_token_id": fake.END,
            "tokenizer.ggml.add_bos_token": False,
            "tokenizer.chat_template": TEMPLATE,
        }
    )


def fake_plan(context: int = 512, batch: int = 16) -> MemoryPlan:
    return MemoryPlan(
        backend="fake",
        quant="none",
        context=context,
        threads=1,
        batch=batch,
        kv_type_k="f16",
        kv_type_v="f16",
        weights_bytes=0,
        kv_bytes=0,
        scratch_bytes=0,
        runtime_bytes=0,
        budget_bytes=1,
    )


def fake_model(
    reply: str | Callable[[bytes], bytes] = "Hello, world.",
    *,
    context: int = 512,
    batch: int = 16,
    seconds_per_token: float = 0.0,
    template: bool = True,
    system: str | None = None,
) -> Model:
    answer = (lambda text: reply.encode()) if isinstance(reply, str) else reply
    backend = fake.FakeBackend(reply=answer, seconds_per_token=seconds_per_token)
    return Model(
        Parts(
            engine=fake.FakeEngine(backend, context),
            tokenizer=byte_tokenizer(),
            plan=fake_plan(context, batch),
            template=ChatTemplate(TEMPLATE) if template else None,
            sampling=SamplingParams(temperature=0),
            system=system,
            reference="fake",
        )
    )
