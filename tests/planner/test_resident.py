"""The line through the measured tokenizers, at its points.

Resident MiB that loading each tokenizer added to a process, as measured once; see resident.py.
"""

from __future__ import annotations

import pytest

from edgeinfer.planner.resident import merges_of, runtime_bytes

MIB = 1 << 20
EMPTY = runtime_bytes(0, 0)


@pytest.mark.parametrize(
    ("kind", "tokens", "merges", "measured"),
    [
        ("gpt2", 49152, 48900, 30.6),  # SmolLM2
        ("gpt2", 32256, 31757, 24.8),  # DeepSeek Coder
        ("gpt2", 65024, 64784, 41.2),  # Falcon
        ("gpt2", 128256, 280147, 106.2),  # Llama 3
        ("gpt2", 151936, 151387, 84.7),  # Qwen2
        ("llama", 32000, 0, 23.5),  # Llama 2
        ("t5", 250002, 0, 406.3),  # random pieces, as many as XLM-RoBERTa's
    ],
)
def test_a_tokenizer_is_predicted_within_three_percent_or_seven_mebibytes(
    kind, tokens, merges, measured
):
    metadata = {"tokenizer.ggml.model": kind}
    if merges:
        metadata["tokenizer.ggml.merges"] = ["a b"] * merges

    predicted = (runtime_bytes(tokens, merges_of(metadata, tokens)) - EMPTY) / MIB

    # Loading any tokenizer brings about 5 MiB of library with it, which EMPTY has.
    assert predicted + 4.7 == pytest.approx(measured, rel=0.03, abs=7)
