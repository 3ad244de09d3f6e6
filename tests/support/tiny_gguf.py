"""A small, valid GGUF file with every kind of metadata, written by the ``gguf`` package."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np


def write_tiny_gguf(path: Path) -> None:
    """Writes a file of about 4 KB: all value types, quantised and plain tensors."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(2)
    writer.add_uint8("test.u8", 255)
    writer.add_int8("test.i8", -128)
    writer.add_uint16("test.u16", 65535)
    writer.add_int16("test.i16", -32768)
    writer.add_int32("test.i32", -(1 << 31))
    writer.add_uint64("test.u64", (1 << 64) - 1)
    writer.add_int64("test.i64", -(1 << 63))
    writer.add_float32("test.f32", 0.1)
    writer.add_float64("test.f64", 0.1)
    writer.add_bool("test.bool", True)
    writer.add_array("test.floats", [0.5, -1.5])
    writer.add_array("test.booleans", [True, False])
    writer.add_array("tokenizer.ggml.tokens", ["<s>", "é", "日本", "🙂", ""])
    rng = np.random.default_rng(0)
    writer.add_tensor("token_embd.weight", rng.standard_normal((5, 32), np.float32))
    quantised = gguf.quants.quantize(
        rng.standard_normal((4, 64), np.float32), gguf.GGMLQuantizationType.Q8_0
    )
    writer.add_tensor("blk.0.attn_q.weight", quantised, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("output_norm.weight", rng.standard_normal(32).astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
