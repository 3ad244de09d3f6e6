"""What our backend for TVM takes of an MLC folder, and how fast it is: sums from measurements.

Llama-3.2-1B's shape in q4f16_1 with a context of 2,048 tokens, filled, was 971 MiB where these
sums say 983 (TVM 0.27, x86-64 with AVX-512); its prompts are read at 0.75 of the native engine's
speed, its tokens computed at the same (benchmarks/mlc_speed.py).
"""

from __future__ import annotations

from dataclasses import replace

from edgeinfer.arch import by_gguf_name
from edgeinfer.arch.tensors import graph_shape
from edgeinfer.formats.mlc.folder import MlcFolder
from edgeinfer.planner.footprint import Footprint, Pace, Setting, refuse_adapters
from edgeinfer.planner.outline import EMBEDDING, OUTPUT, Outline, Retyped, tensor_bytes
from edgeinfer.planner.paces import native_pace
from edgeinfer.planner.resident import runtime_bytes

_KV_TYPES = ("f16", "f32")  # of the cache
_LIBRARY_BYTES = 70 << 20  # of tvm_ffi, TVM's runtime and the compiled model
_VALUE_BYTES = {"f32": 4, "f16": 2}
_THREE = 3  # bits of codes that are given four when they are loaded
_PREFILL = 0.75  # of the native engine's speed
_MOST_TOKENS = 512  # of a call, which its buffers are for
_FLOATS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
_BLOCK = (
    "attn_q.weight",
    "attn_k.weight",
    "attn_v.weight",
    "attn_output.weight",
    "ffn_gate.weight",
    "ffn_up.weight",
    "ffn_down.weight",
)


def outline(folder: MlcFolder) -> Outline:
    """Returns the matrices of a folder, in the GGUF types nearest in size and speed."""
    config, quant = folder.config, folder.quant
    floats = _FLOATS[quant.dtype]
    coded = "q4_0" if quant.bits else floats
    ends = coded if quant.ends else floats
    tensors = {EMBEDDING: Retyped(ends, (config.vocab_size, config.width))}
    if not config.tied_output:
        tensors[OUTPUT] = Retyped(ends, (config.vocab_size, config.width))
    for i in range(config.layers):
        for kind in _BLOCK:
            tensors[f"blk.{i}.{kind}"] = Retyped(coded, graph_shape(config, kind))
    size = sum(stored.nbytes for stored in folder.tensors.values())
    if quant.bits == _THREE:  # ten codes a word, which become eight
        words = sum(s.nbytes for name, s in folder.tensors.items() if name.endswith(".q_weight"))
        size += words // 4
    return Outline(
        arch=by_gguf_name(config.architecture),
        config=config,
        tensors=tensors,
        quant=quant.name,
        kv_types=_KV_TYPES,
        longest_context=config.context,
        merges=config.vocab_size,
        surplus_bytes=size - sum(map(tensor_bytes, tensors.values())),
    )


def footprint(model: Outline, setting: Setting) -> Footprint:
    """Returns what a model takes, through our backend."""
    refuse_adapters(setting)
    config = model.config
    positions = setting.context * config.layers * config.kv_heads * config.head_dim
    kinds = setting.kv_type_k, setting.kv_type_v
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    widest = 3 * config.ff_width + 3 * config.width + 2 * (queries + 2 * keys)
    return Footprint(
        weights_bytes=model.file_bytes,  # copied into the kernels' order
        kv_bytes=sum(positions * _VALUE_BYTES.get(kind, 4) for kind in kinds),
        scratch_bytes=4 * (_MOST_TOKENS * widest + 2 * config.vocab_size),
        runtime_bytes=runtime_bytes(config.vocab_size, model.merges) + _LIBRARY_BYTES,
    )


def pace(model: Outline) -> Pace:
    """How near the ceilings it comes: as measured beside the native engine, whose layout it has."""
    native = native_pace(model)
    return replace(
        native,
        prefill=_PREFILL * native.prefill,
        attention=native.attention / 2,
        layer_seconds=40e-6,
    )
