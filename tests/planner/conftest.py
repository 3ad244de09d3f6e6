"""Headers of models that exist only as shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from edgeinfer.device import DeviceProfile, known


@dataclass(frozen=True)
class Tensor:
    type: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Header:
    metadata: dict[str, Any]
    tensors: dict[str, Tensor]


def llama(
    *,
    layers: int = 2,
    width: int = 256,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 64,
    ff: int = 512,
    vocab: int = 1000,
    context: int = 4096,
    kind: str = "q4_0",
    embedding: str = "q6_k",
    tied: bool = True,
    keys: dict[str, Any] | None = None,
) -> Header:
    """The header of a Llama."""
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": layers,
        "llama.context_length": context,
        "llama.embedding_length": width,
        "llama.feed_forward_length": ff,
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": kv_heads,
        "llama.attention.key_length": head_dim,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.vocab_size": vocab,
    } | (keys or {})
    tensors = {
        "token_embd.weight": Tensor(embedding, (vocab, width)),
        "output_norm.weight": Tensor("f32", (width,)),
    }
    if not tied:
        tensors["output.weight"] = Tensor(embedding, (vocab, width))
    for i in range(layers):
        tensors |= {
            f"blk.{i}.attn_norm.weight": Tensor("f32", (width,)),
            f"blk.{i}.attn_q.weight": Tensor(kind, (heads * head_dim, width)),
            f"blk.{i}.attn_k.weight": Tensor(kind, (kv_heads * head_dim, width)),
            f"blk.{i}.attn_v.weight": Tensor(kind, (kv_heads * head_dim, width)),
            f"blk.{i}.attn_output.weight": Tensor(kind, (width, heads * head_dim)),
            f"blk.{i}.ffn_norm.weight": Tensor("f32", (width,)),
            f"blk.{i}.ffn_gate.weight": Tensor(kind, (ff, width)),
            f"blk.{i}.ffn_up.weight": Tensor(kind, (ff, width)),
            f"blk.{i}.ffn_down.weight": Tensor(kind, (width, ff)),
        }
    return Header(metadata, tensors)


@pytest.fixture
def header():
    """``header(layers=3, ...)`` is the header of a Llama of that shape."""
    return llama


@pytest.fixture
def large() -> Header:
    """Llama 2 7B in f16: 13 GB of weights, 2 GiB of KV cache at its 4096 tokens."""
    return llama(
        layers=32, width=4096, heads=32, kv_heads=32, head_dim=128, ff=11008, vocab=32000,
        kind="f16", embedding="f16", tied=False,
    )  # fmt: skip


@pytest.fixture
def device() -> DeviceProfile:
    return known.load("rpi5-16gb")
