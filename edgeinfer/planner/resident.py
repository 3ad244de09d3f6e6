"""What the process takes beside the engine: interpreter, libraries, tokenizer.

Measured as the resident peak of ``edgeinfer.load`` and a generation less the engine's own
bytes (Linux, CPython 3.11, x86-64; tests/planner/test_measured.py holds it to 5 %). The
interpreter with the libraries is a constant; the tokenizer's tables grow with the vocabulary.
"""

from __future__ import annotations

_LIBRARIES_BYTES = 70 << 20
_TOKENIZER_BYTES_PER_ENTRY = 600  # a token with its merge, in the tokenizer and the metadata


def runtime_bytes(vocab_size: int) -> int:
    """Returns the resident bytes of everything but weights, KV cache and scratch."""
    return _LIBRARIES_BYTES + _TOKENIZER_BYTES_PER_ENTRY * vocab_size
