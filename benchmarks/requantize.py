"""A llama model written again as a GGUF in which every matrix has one quant type.

A K-quant block spans 256 columns and SmolLM2 is 576 wide, so a plain requantisation gives its
K-quants to one matrix in seven. Padding helps: with zero rows, columns and heads up to a width
of 768, and with the norms scaled for the longer mean, the model computes the same function, and
every matrix has whole blocks of 256.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A GGUF in memory: (value, value type, element type) per key, and float32 tensors."""

    metadata: dict[str, tuple[Any, GGUFValueType, GGUFValueType | None]]
    tensors: dict[str, Array]

    def __getitem__(self, key: str) -> Any:
        return self.metadata[f"{self.metadata['general.architecture'][0]}.{key}"][0]


def read(path: Path) -> Model:
    """Reads a GGUF; the gguf package decodes the tensors."""
    reader = gguf.GGUFReader(path)
    return Model(
        metadata={
            name: (field.contents(), field.types[0], (*field.types[1:], None)[0])
            for name, field in reader.fields.items()
            if not name.startswith("GGUF.")
        },
        tensors={
            tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            for tensor in reader.tensors
        },
    )


def padded(model: Model, multiple: int) -> Model:
    """Widens a llama model to a multiple of ``multiple``; the function it computes stays."""
    old = model["embedding_length"]
    new = math.ceil(old / multiple) * multiple
    head_dim = old // model["attention.head_count"]
    kv_heads = model["attention.head_count_kv"] * new // old
    # Whole groups of query heads per KV head, so that no head changes its partner.
    assert kv_heads * old == model["attention.head_count_kv"] * new and new % head_dim == 0

    changed = {
        "embedding_length": new,
        "attention.head_count": new // head_dim,
        "attention.head_count_kv": kv_heads,
        # mean(x^2) shrinks by old / new when zeros join it, and so must what is added to it.
        "attention.layer_norm_rms_epsilon": model["attention.layer_norm_rms_epsilon"] * old / new,
    }
    metadata = dict(model.metadata)
    arch = metadata["general.architecture"][0]
    for key, value in changed.items():
        metadata[f"{arch}.{key}"] = (value, *metadata[f"{arch}.{key}"][1:])

    def widen(name: str, w: Array) -> Array:
        if w.ndim == 1:
            return np.pad(w * np.float32(math.sqrt(old / new)), (0, new - old))
        is_kv = name.endswith(("attn_k.weight", "attn_v.weight"))
        rows = kv_heads * head_dim if is_kv else new if w.shape[0] == old else w.shape[0]
        cols = new if w.shape[1] == old else w.shape[1]
        return np.pad(w, ((0, rows - w.shape[0]), (0, cols - w.shape[1])))

    tensors = {name: widen(name, tensor) for name, tensor in model.tensors.items()}
    return Model(metadata=metadata, tensors=tensors)


def write(path: Path, model: Model, ggml_type: GGMLQuantizationType) -> None:
    """Writes the model with every matrix in one type, encoded by llama.cpp's encoder."""
    from llamacpp_peer import quantize

    block, block_bytes = gguf.GGML_QUANT_SIZES[ggml_type]
    writer = gguf.GGUFWriter(path, model.metadata["general.architecture"][0])
    for name, (value, kind, element) in model.metadata.items():
        if name != "general.architecture":
            writer.add_key_value(name, value, kind, element)
    for name, tensor in model.tensors.items():
        if tensor.ndim == 1:
            writer.add_tensor(name, tensor)
            continue
        assert tensor.shape[1] % block == 0, (name, tensor.shape, ggml_type)
        encoded = quantize(tensor, ggml_type, tensor.shape[1] // block * block_bytes)
        writer.add_tensor(name, encoded, raw_dtype=ggml_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
