"""Writes vocabulary-only GGUFs with the format's own package, and reads them in llama.cpp."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np


def write_vocabulary(path: Path, keys: Mapping[str, Any]) -> Path:
    """Writes keys and no tensors, with as much of a model as llama.cpp wants to see."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    for name in ("block_count", "embedding_length", "feed_forward_length", "context_length"):
        writer.add_uint32(f"llama.{name}", 512)
    writer.add_uint32("llama.attention.head_count", 1)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    for key, value in keys.items():
        match value:
            case bool():
                writer.add_bool(key, value)
            case int():
                writer.add_uint32(key, value)
            case str():
                writer.add_string(key, value)
            case np.ndarray():
                kind = gguf.GGUFValueType.FLOAT32 if value.dtype.kind == "f" else None
                writer.add_key_value(
                    key,
                    value.tolist(),
                    gguf.GGUFValueType.ARRAY,
                    sub_type=kind or gguf.GGUFValueType.INT32,
                )
            case _:
                writer.add_array(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


Encode = Callable[[str, bool, bool], list[int]]


@contextmanager
def llamacpp_encoder(path: Path) -> Iterator[Encode]:
    """Gives llama.cpp's ``encode(text, add_special, parse_special)`` of a vocabulary."""
    import llama_cpp

    with closing(llama_cpp.Llama(str(path), vocab_only=True, verbose=False)) as model:
        yield lambda text, add_special, parse_special: model.tokenize(
            text.encode(), add_special, parse_special
        )
