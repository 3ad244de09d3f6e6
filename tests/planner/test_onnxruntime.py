"""What ONNX Runtime is predicted to take, beside resident peaks that were measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgeinfer.planner import onnxruntime
from edgeinfer.planner.footprint import Setting
from edgeinfer.planner.outline import Outline, tensor_bytes

from .conftest import llama

MIB = 1 << 20
LLAMA_1B = {
    "layers": 16, "width": 2048, "heads": 32, "kv_heads": 8, "head_dim": 64, "ff": 8192,
    "vocab": 128256, "embedding": "q4_0",
}  # fmt: skip
SMOLLM2 = {
    "layers": 30, "width": 576, "heads": 9, "kv_heads": 3, "head_dim": 64, "ff": 1536,
    "vocab": 49152, "context": 8192,
}  # fmt: skip
INT4 = {**SMOLLM2, "kind": "q4_1", "embedding": "q8_0"}
F32 = {**SMOLLM2, "kind": "f32", "embedding": "f32"}


# Shape, merges, MiB of the folder, context, cache, and the MiB that the kernel counted at the
# peak of a context read to its end (onnxruntime 1.32, x86-64 with AVX-512, two threads).
@pytest.mark.parametrize(
    ("shape", "merges", "folder", "context", "cache", "measured"),
    [
        (LLAMA_1B, 126_000, 756, 512, "f32", 1337),
        (LLAMA_1B, 126_000, 756, 1536, "f32", 1381),
        (F32, 48_900, 518.7, 512, "f32", 768),
        (F32, 48_900, 518.7, 4096, "f32", 938),
        (INT4, 48_900, 106.1, 512, "f32", 297),
        (INT4, 48_900, 106.3, 512, "int8", 281),
        (INT4, 48_900, 105.1, 1024, "f16", 347),
    ],
)
def test_the_sums_are_what_was_measured(shape, merges, folder, context, cache, measured):
    outline = replace(Outline.of_gguf(llama(**shape)), merges=merges, kv_type=cache)
    matrices = sum(map(tensor_bytes, outline.tensors.values()))
    outline = replace(outline, surplus_bytes=int(folder * MIB) - matrices)
    setting = Setting(context=context, batch=512, threads=2, kv_type_k=cache, kv_type_v=cache)

    takes = onnxruntime.footprint(outline, setting)

    total = takes.weights_bytes + takes.kv_bytes + takes.scratch_bytes + takes.runtime_bytes
    assert total / MIB == pytest.approx(measured, rel=0.05)
    assert 0 < takes.reclaimable_bytes < takes.weights_bytes
