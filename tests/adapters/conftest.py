"""Tiny models as float32 GGUFs with a PEFT adapter each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support import tiny
from support.peft_adapter import write_peft

ADAPTED = [
    tiny.BY_NAME[name]
    for name in (
        "llama-gqa64-tied",  # queries and keys change their order of rows
        "llama-mha64-biases",
        "qwen3-gqa128-tied",
        "gemma2-gqa64",
        "phi3-gqa64-window",  # fused queries, keys and values; fused gate and up
        "olmo2-mha64",
        "starcoder2-gqa64",  # no gate
        "qwen3moe-gqa128",  # attention only
        "gpt2-mha64",  # matrices stored the other way round
        "lfm2-gqa64",
        "lfm2moe-gqa64",  # also the blocks of layers without experts
        "qwen3next-gqa64",  # one matrix becomes two, in another order
        "gemma3n-mqa32-shared",  # gates of which only the largest count
        "qwen35-three-heads-a-key",  # values change their order, of rows and of columns
    )
]


@dataclass(frozen=True, slots=True)
class Adapted:
    """A model: its checkpoint, its GGUF, its adapter by PEFT, and as GGUF."""

    model: tiny.Tiny
    folder: Path
    gguf: Path
    peft: Path
    adapter: Path


@pytest.fixture(scope="session")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Adapted]:
    """Makes a model with its adapter, once each."""
    from edgeinfer_converters.gguf import convert

    made: dict[str, Adapted] = {}

    def make(model: tiny.Tiny, *, seed: int = 0, **config: Any) -> Adapted:
        key = f"{model} {seed} {config}"
        if key not in made:
            root = tmp_path_factory.mktemp("adapted")
            folder = tiny.write(model, root / "hf")
            peft = write_peft(model, root / "peft", seed=seed, **config)
            convert(folder, root / "model.gguf", quant="f32")
            convert(folder, root / "adapter.gguf", lora=peft, quant="f32")
            made[key] = Adapted(model, folder, root / "model.gguf", peft, root / "adapter.gguf")
        return made[key]

    return make
