"""What llama.cpp takes of memory, from shapes alone (as of llama-cpp-python 0.3.36).

The file is mapped with all its pages, so all of it counts as resident. Matrices of types that
the processor multiplies faster in another order are copied into it; the pages they were copied
from stay mapped but are never read again. The cache is cleared, so resident, when it is made.
Compute buffers are laid out once for the largest step: what is alive together in its widest
stage, with the holes that ggml's allocator leaves. The sums were compared with the sizes that
llama.cpp logs, over shapes, contexts and steps; benchmarks/memory.py holds them against what
the kernel counts.
"""

from __future__ import annotations

from functools import lru_cache

from edgeinfer.arch.config import ModelConfig
from edgeinfer.formats.ggml_types import BY_NAME
from edgeinfer.planner.costs import one_state_bytes
from edgeinfer.planner.footprint import Footprint, Setting
from edgeinfer.planner.outline import EMBEDDING, OUTPUT, Outline, tensor_bytes
from edgeinfer.planner.resident import runtime_bytes

MOST_ROWS = 64  # of logits a step; the backend asks for no more

_CONTEXT_STEP = 256  # contexts are rounded up to it
# Kernel set -> types that are copied into another order (ggml-cpu/repack.cpp), and how many
# rows a matrix must be a multiple of.
_AVX2 = frozenset({"q4_0", "q4_k", "iq4_nl", "mxfp4"})
_NEON = frozenset({"q4_0", "q4_k", "q5_k", "q6_k", "q8_0", "iq4_nl", "mxfp4"})
_REPACKED = {
    "avx2": _AVX2,
    "avxvnni": _AVX2,
    "avx512": _AVX2 | {"q2_k"},
    "neon_dotprod": _NEON,
    "neon_i8mm": _NEON,
}
_REPACKED_ROWS = 8

# Its own vocabulary beside ours: a straight line through measurements, as in ``resident``.
_LIBRARIES_BYTES = 12 << 20
_TOKEN_BYTES = 170
_MERGE_BYTES = 160


def footprint(model: Outline, setting: Setting) -> Footprint:
    """Returns what llama.cpp takes of a model, through our backend for it."""
    config = model.config
    context = -(-setting.context // _CONTEXT_STEP) * _CONTEXT_STEP
    repacked = repacked_bytes(model, setting.isas)
    own = _LIBRARIES_BYTES + _TOKEN_BYTES * config.vocab_size + _MERGE_BYTES * model.merges
    adapters = sum(adapter.nbytes for adapter in setting.adapters)
    return Footprint(
        weights_bytes=model.file_bytes + repacked + adapters,
        adapter_bytes=adapters,
        kv_bytes=kv_bytes(config, context, setting.kv_type_k, setting.kv_type_v),
        scratch_bytes=compute_bytes(config, context, setting) + _work_bytes(config, setting),
        runtime_bytes=runtime_bytes(model.config.vocab_size, model.merges) + own,
        reclaimable_bytes=repacked,
    )


@lru_cache(maxsize=64)
def repacked_bytes(model: Outline, isas: tuple[str, ...]) -> int:
    """Bytes of the matrices that are copied into another order on a processor."""
    kinds = _REPACKED.get(isas[0], frozenset()) if isas else frozenset()
    total = 0
    for name, tensor in model.tensors.items():
        is_multiplied = name != EMBEDDING or OUTPUT not in model.tensors
        if len(tensor.shape) > 1 and tensor.type in kinds and is_multiplied:
            total += tensor_bytes(tensor) if tensor.shape[-2] % _REPACKED_ROWS == 0 else 0
    return total


def kv_bytes(config: ModelConfig, context: int, kv_type_k: str, kv_type_v: str) -> int:
    """Bytes of one sequence's keys and values, and of its running state."""
    kinds = BY_NAME[kv_type_k], BY_NAME[kv_type_v]
    kept = [config.at(i) for i in range(config.layers) if config.causal and config.has_kv(i)]
    values = [layer.kv_heads * layer.head_dim for layer in kept]
    row = sum(count // kind.block * kind.nbytes for kind in kinds for count in values)
    return context * row + one_state_bytes(config)


def compute_bytes(config: ModelConfig, context: int, setting: Setting) -> int:
    """Bytes of the compute buffer: inputs, and the widest of a layer's stages or the logits."""
    batch = setting.batch
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    is_flash = not setting.kv_type_k == setting.kv_type_v == "f32"
    mask = context * batch * (2 if is_flash else 4)
    if is_flash:
        attention = 2 * (queries + keys) + 3 * config.width
    else:
        attention = context * config.heads + 2 * config.width + 3 * queries + 2 * keys
    experts = config.experts_used or 1
    widest = max(experts * config.ff_width, config.dense_ff_width)
    forward = 3 * widest + (experts + 3) * config.width
    layer = mask + 4 * batch * max(attention, forward)
    rows = min(batch, MOST_ROWS)
    logits = 4 * rows * (config.vocab_size + 4 * config.width)
    return max(layer, logits) + 4 * rows * config.vocab_size // max(rows, 1)


def _work_bytes(config: ModelConfig, setting: Setting) -> int:
    """Activations as the matrix products take them: 8 bits, and scales."""
    cols = max(config.ff_width, config.dense_ff_width, config.heads * config.head_dim, config.width)
    kind = BY_NAME["q8_k"]
    return setting.batch * cols * kind.nbytes // kind.block
