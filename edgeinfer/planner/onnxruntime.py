"""What ONNX Runtime takes of an exported folder, and how fast it is: sums from measurements.

The library copies matrices into the order its kernels read, with a sum beside each block's scale.
The embedding stays mapped, even if it is the output matrix as well and was copied as that; of
the rest some pages are still mapped when the last matrix is copied, and gone when the first
tokens come (onnxruntime 1.32, x86-64 with AVX-512).
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from edgeinfer.arch import by_gguf_name
from edgeinfer.formats.onnx_folder import NEAREST, OnnxFolder
from edgeinfer.planner.footprint import Footprint, Pace, Setting, refuse_adapters
from edgeinfer.planner.outline import EMBEDDING, OUTPUT, Outline, Retyped, tensor_bytes
from edgeinfer.planner.paces import llamacpp_pace
from edgeinfer.planner.resident import runtime_bytes

# Nearest type -> bytes a weight in the file, and in the library's order.
_WEIGHT_BYTES = {
    "q4_0": (0.625, 0.75),
    "q4_1": (0.66, 0.79),
    "q8_0": (1.125, 1.25),
    "f16": (2.0, 4.0),
    "f32": (4.0, 4.0),
}
_MAPPED = 0.17  # part of the file that is mapped at the end of loading, where it is copied anew
_LIBRARY_BYTES = 43 << 20
_SCORE_BYTES = {"f16": 10}  # of a cache's type; of the others they are not kept
_VALUE_BYTES = {"f32": 4, "f16": 2, "int8": 1}


def outline(folder: OnnxFolder) -> Outline:
    """Returns the matrices of a folder, in the GGUF types nearest in size and speed."""
    tensors = {
        name: Retyped(NEAREST[type_], shape) for name, (type_, shape) in folder.matrices.items()
    }
    return Outline(
        arch=by_gguf_name(folder.config.architecture),
        config=replace(folder.config, context=folder.context),
        tensors=tensors,
        quant=folder.quant,
        longest_context=folder.context,
        merges=folder.merges,
        surplus_bytes=sum(folder.files.values()) - sum(map(tensor_bytes, tensors.values())),
        kv_type=folder.cache,
    )


def footprint(model: Outline, setting: Setting) -> Footprint:
    """Returns what ONNX Runtime takes of a model, through our backend for it."""
    refuse_adapters(setting)
    config = model.config
    positions = setting.context * config.layers * config.kv_heads * config.head_dim
    kinds = setting.kv_type_k, setting.kv_type_v
    kv = sum(positions * _VALUE_BYTES[kind] for kind in kinds)
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    widest = 3 * config.ff_width + 2 * config.width + 2 * (queries + 2 * keys)
    scores = setting.batch * setting.context * config.heads * _SCORE_BYTES.get(kinds[0], 0)
    scratch = 4 * (setting.batch * widest + 4 * config.vocab_size) + scores
    stored = copied = embedding = 0.0
    for name, tensor in model.tensors.items():
        in_file, in_order = (size * prod(tensor.shape) for size in _WEIGHT_BYTES[tensor.type])
        stored += in_file
        if name == EMBEDDING:
            embedding = in_file
        if name != EMBEDDING or OUTPUT not in model.tensors:
            copied += in_order
    part = model.file_bytes / stored  # what is not matrices is little
    mapped = int(embedding * part)
    # Pages that are gone when there are keys, values and activations count as far as they are more.
    passing = int(_MAPPED * model.file_bytes) if copied != stored else 0
    mapped += max(passing - kv - scratch, 0)
    return Footprint(
        weights_bytes=int(copied * part) + mapped,
        kv_bytes=kv,
        scratch_bytes=scratch,
        runtime_bytes=runtime_bytes(config.vocab_size, model.merges) + _LIBRARY_BYTES,
        reclaimable_bytes=mapped,
    )


def pace(model: Outline) -> Pace:
    """How near the ceilings it comes: about as llama.cpp does, until it is measured."""
    return llamacpp_pace(model)
