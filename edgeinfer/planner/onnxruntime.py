"""What ONNX Runtime takes of an exported folder, and how fast it is: sums from measurements.

The library copies the matrices into the order its kernels read, and maps the file meanwhile:
Llama-3.2-1B's shape in int4, 781 MB of data, left 920 MB of its own and, at the peak, 280 MB of
pages of the file (onnxruntime 1.32, x86-64 with AVX-512).
"""

from __future__ import annotations

from dataclasses import replace

from edgeinfer.arch import by_gguf_name
from edgeinfer.formats.onnx_folder import NEAREST, OnnxFolder
from edgeinfer.planner.footprint import Footprint, Pace, Setting
from edgeinfer.planner.outline import Outline, Retyped, tensor_bytes
from edgeinfer.planner.paces import llamacpp_pace
from edgeinfer.planner.resident import runtime_bytes

_COPIED, _MAPPED = 1.2, 0.36  # parts of the data
_LIBRARY_BYTES = 25 << 20
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
    config = model.config
    copied, mapped = (int(part * model.file_bytes) for part in (_COPIED, _MAPPED))
    positions = setting.context * config.layers * config.kv_heads * config.head_dim
    kinds = setting.kv_type_k, setting.kv_type_v
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    widest = 3 * config.ff_width + 2 * config.width + 2 * (queries + 2 * keys)
    # Scores of a step are kept for all heads at once.
    scores = setting.batch * setting.context * config.heads
    return Footprint(
        weights_bytes=copied + mapped,
        kv_bytes=sum(positions * _VALUE_BYTES[kind] for kind in kinds),
        scratch_bytes=4 * (setting.batch * widest + scores + config.vocab_size),
        runtime_bytes=runtime_bytes(config.vocab_size, model.merges) + _LIBRARY_BYTES,
        reclaimable_bytes=mapped,
    )


def pace(model: Outline) -> Pace:
    """How near the ceilings it comes: about as llama.cpp does, until it is measured."""
    return llamacpp_pace(model)
