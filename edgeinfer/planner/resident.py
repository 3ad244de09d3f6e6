"""What the process takes beside the engine: interpreter, libraries, tokenizer.

A straight line through measurements (Linux, x86-64, CPython 3.11; resident bytes after
loading the tokenizers of SmolLM2, GPT-2, Falcon, DeepSeek Coder, Llama 3, Qwen2, Llama 2 and
Phi 3, which have 32,000 to 152,000 tokens); benchmarks/memory.py and
tests/planner/test_measured.py compare whole plans with what the kernel counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LIBRARIES_BYTES = 45 << 20  # of a process that has generated
_TOKEN_BYTES = 318
_MERGE_BYTES = 234
# SentencePiece vocabularies list no merges; the tokenizer makes about two from each token.
_MERGES_PER_PIECE = 2
# Unigram vocabularies have none; of 250,000 random pieces the library makes a tree of 406 MiB.
_MERGES_PER_UNIGRAM = 6


def runtime_bytes(vocab_size: int, merges: int) -> int:
    """Returns the resident bytes of everything but weights, KV cache and scratch."""
    return _LIBRARIES_BYTES + _TOKEN_BYTES * vocab_size + _MERGE_BYTES * merges


def merges_of(metadata: Mapping[str, Any], vocab_size: int) -> int:
    """Returns how many merges the tokenizer of a GGUF file will have."""
    # Keys of another type than they should have are for the tokenizer to refuse.
    listed, model = (metadata.get(f"tokenizer.ggml.{key}") for key in ("merges", "model"))
    merges = len(listed) if isinstance(listed, list) else 0
    if not isinstance(model, str):
        return merges
    if model == "llama" and not merges:
        return _MERGES_PER_PIECE * vocab_size
    return _MERGES_PER_UNIGRAM * vocab_size if model == "t5" else merges
