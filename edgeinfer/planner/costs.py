"""What the native engine takes, in bytes: the same sums as the engine, from shapes alone.

The tests compare each with what the engine itself says (native/engine/weights.h,
kv_cache.h, scratch.h).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from math import prod

from edgeinfer.arch.config import Mixer, ModelConfig
from edgeinfer.arch.spec import Architecture
from edgeinfer.arch.tensors import (
    FLOATS,
    LOOKED_UP,
    at_layer,
    engine_tensors,
    graph_shape,
    split_name,
)
from edgeinfer.formats.adapter import AdapterHeader
from edgeinfer.formats.ggml_types import BY_NAME
from edgeinfer.planner.footprint import Footprint, Setting
from edgeinfer.planner.outline import EMBEDDING, Outline, Tensor
from edgeinfer.planner.resident import runtime_bytes
from edgeinfer.quant import all_types

_GROUP_ROWS = 16  # rows are packed 16 at a time
_ALIGNMENT = 64  # a tensor, and a buffer, begins on a cache line
_ACT_BLOCK_BYTES, _ACT_BLOCK = 64, 32  # quantised activations: bytes for values
_MIN_PARTIALS = 64  # rows of partial attention results, at least
# Earlier states that a sequence keeps: as many as take so many bytes, within limits.
_KEPT_BYTES, _LEAST_KEPT, _MOST_KEPT = 16 << 20, 2, 16
_SHARED_GATE = "ffn_gate_inp_shexp.weight"
_PAGE = 4096
_SHARING = 4  # matrices that share their input
_KV_BLOCK = 256  # positions of the cache that become resident together


def footprint(model: Outline, setting: Setting) -> Footprint:
    """Returns what the native engine takes of a model."""
    adapters = sum(adapter_bytes(model, adapter) for adapter in setting.adapters)
    return Footprint(
        weights_bytes=_packed(model) + adapters,
        adapter_bytes=adapters,
        kv_bytes=kv_bytes(model.config, setting.context, setting.kv_type_k, setting.kv_type_v),
        scratch_bytes=scratch_bytes(model.config, setting.batch)
        + step_kv_bytes(model.config, setting.batch, setting.kv_type_k, setting.kv_type_v)
        + reduced_bytes(setting),
        runtime_bytes=runtime_bytes(model.config.vocab_size, model.merges),
    )


@lru_cache(maxsize=64)
def _packed(model: Outline) -> int:
    return weights_bytes(model.arch, model.config, model.tensors) + model.surplus_bytes


def weights_bytes(arch: Architecture, config: ModelConfig, tensors: Mapping[str, Tensor]) -> int:
    """Returns the bytes of the packed weights.

    Raises:
        CorruptFileError: a tensor is missing or has the wrong shape.
        UnsupportedError: a tensor is not part of the family's graph.
    """
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    total = 0
    for part in engine_tensors(arch, config, shapes):
        source = tensors[part.source]
        if split_name(part.name)[1] == _SHARED_GATE:  # a matrix of one row
            size = _GROUP_ROWS * _row_bytes(source)
        elif len(source.shape) == 1:  # norms and biases are kept as float32
            size = 4 * part.row_count
        elif part.name.endswith(".bias"):  # of an expert
            size = 4 * source.shape[-1]
        elif split_name(part.name)[1] in FLOATS:
            size = 4 * prod(source.shape)
        elif part.name in LOOKED_UP or (part.name == EMBEDDING and not config.tied_output):
            size = part.row_count * _row_bytes(source)
        else:
            size = _round_up(part.row_count, _GROUP_ROWS) * _packed_row_bytes(source)
        total += _round_up(size, _ALIGNMENT)
    return total


def adapter_bytes(model: Outline, adapter: AdapterHeader) -> int:
    """Returns the bytes of an adapter's matrices, packed as float32, each in pages of its own."""
    total = 0
    for name, change in adapter.shapes.items():
        _, columns = change.shape
        for part in model.arch.fused.get(split_name(name)[1], (split_name(name)[1],)):
            rows = graph_shape(at_layer(model.config, name), part)[0]
            for height, width in ((change.rank, columns), (rows, change.rank)):
                total += _round_up(4 * _round_up(height, _GROUP_ROWS) * width, _PAGE)
    return total


def reduced_bytes(setting: Setting) -> int:
    """Returns the bytes of what a step's tokens are reduced to by adapters' first matrices."""
    ranks = (max(c.rank for c in a.shapes.values()) for a in setting.adapters if a.shapes)
    return 4 * _SHARING * setting.batch * sum(ranks)


def kv_bytes(config: ModelConfig, context: int, kv_type_k: str, kv_type_v: str) -> int:
    """Returns the bytes of what one sequence keeps when its context is full.

    That is the keys and values of layers with attention, and the states of recurrent ones; nothing
    if texts are read as a whole.
    """
    if not config.causal:
        return 0
    kept = (config.at(i) for i in range(config.layers) if config.has_kv(i))
    return state_bytes(config) + sum(
        _layer_kv_bytes(layer, context, kv_type_k, kv_type_v) for layer in kept
    )


def step_kv_bytes(config: ModelConfig, batch: int, kv_type_k: str, kv_type_v: str) -> int:
    """Returns the bytes of a layer's keys and values in a step whose texts leave nothing behind."""
    return 0 if config.causal else _layer_kv_bytes(config, 4 * batch, kv_type_k, kv_type_v)


def _layer_kv_bytes(config: ModelConfig, places: int, kv_type_k: str, kv_type_v: str) -> int:
    positions = _round_up(places, _KV_BLOCK) * config.kv_heads
    kinds = BY_NAME[kv_type_k], BY_NAME[kv_type_v]
    return positions * sum(config.head_dim // kind.block * kind.nbytes for kind in kinds)


def state_bytes(config: ModelConfig) -> int:
    """Returns the bytes of the running states of one sequence, earlier ones that are kept too."""
    size = one_state_bytes(config)
    if not size:
        return 0
    return size * (1 + min(max(_KEPT_BYTES // size, _LEAST_KEPT), _MOST_KEPT))


def one_state_bytes(config: ModelConfig) -> int:
    """Returns the bytes of a running state."""
    matrices = 4 * config.delta_heads * config.delta_dim**2
    return sum(
        _round_up(4 * (config.conv_taps - 1) * config.conv_width(mixer), _ALIGNMENT)
        + (matrices if mixer is Mixer.DELTA_NET else 0)
        for mixer in config.mixers
        if mixer is not Mixer.ATTENTION
    )


def scratch_bytes(config: ModelConfig, batch: int) -> int:
    """Returns the bytes of the buffers of a step of ``batch`` tokens, and a row of logits."""
    queries, keys = config.heads * config.head_dim, config.kv_width
    mixed = config.mixed_width
    inputs = config.layers * config.per_layer_width
    ff_rows = batch * (config.experts_used + config.shared_expert or 1)
    partials = max(batch, _MIN_PARTIALS)
    rope = len(config.rope_tables) * batch * (config.head_dim // 2)
    floats = [
        *(batch * config.width,) * 3,  # residual stream, its norm, a block's output
        *(batch * mixed, batch * keys, batch * keys, batch * queries),  # q, k, v, q by head
        *(partials * queries, partials * config.heads, partials * config.heads),  # attention
        max(ff_rows * config.ff_width, batch * config.dense_ff_width),  # gated
        *(rope, rope),  # cosines, sines
        batch * config.projected_width,  # inputs of recurrent layers
        *(batch * inputs, batch * inputs, batch * config.per_layer_width),  # of layers' own inputs
        batch * config.width if config.has_beside else 0,  # of a block beside experts
        config.streams * batch * config.width if config.streams > 1 else 0,
        batch * config.laurel_rank,
        batch * config.ff_width if config.has_sparse_gates else 0,  # beside gates
    ]
    if Mixer.DELTA_NET in config.layer_mixer:
        values = batch * config.delta_heads * config.delta_dim
        heads = batch * config.delta_heads
        floats += [batch * config.conv_width(Mixer.DELTA_NET), values, 2 * heads, heads, heads]
    quantised = [(max(config.width, mixed, config.per_layer_width, config.laurel_rank), batch)]
    if config.experts:
        blocks = config.experts + config.shared_expert
        floats += [
            batch * config.experts,  # router
            *(ff_rows,) * 3,  # chosen experts, their weights and rows
            batch,  # score of the shared one
            *(blocks, 3 * blocks),  # next rows, shares
            ff_rows * config.width,  # inputs and outputs of the experts
        ]
        quantised.append((config.width, ff_rows))
    gated = ((config.ff_width, ff_rows), (config.dense_ff_width, batch))
    buffers = sum(_round_up(4 * count, _ALIGNMENT) for count in floats)
    blocks = sum(_round_up(cols, _ACT_BLOCK) // _ACT_BLOCK * rows for cols, rows in quantised)
    blocks += max(_round_up(cols, _ACT_BLOCK) // _ACT_BLOCK * rows for cols, rows in gated)
    return buffers + blocks * _ACT_BLOCK_BYTES + 4 * config.vocab_size


def _row_bytes(tensor: Tensor) -> int:
    kind = BY_NAME[tensor.type]
    return tensor.shape[-1] // kind.block * kind.nbytes


def _packed_row_bytes(tensor: Tensor) -> int:
    packed = _packed_bytes().get(tensor.type)
    return _row_bytes(tensor) if packed is None else tensor.shape[-1] // packed[0] * packed[1]


@cache
def _packed_bytes() -> dict[str, tuple[int, int]]:
    return {type_.name: (type_.block, type_.packed_bytes) for type_ in all_types()}


def _round_up(count: int, step: int) -> int:
    return -(-count // step) * step
