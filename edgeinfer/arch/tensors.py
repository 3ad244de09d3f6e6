"""The tensors of a model: which there must be, their shapes, and which rows are which.

The graph's tensors have the GGUF names; some files hold several of them in one tensor
("fused"), so each is a range of rows of a file's tensor.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgeinfer.arch.config import Mixer, ModelConfig, QkNorm
from edgeinfer.arch.from_gguf import ROPE_TENSORS
from edgeinfer.arch.spec import (
    BIAS_TENSORS,
    HEADLESS,
    KV_TENSORS,
    USUAL_BLOCKS,
    Architecture,
    is_of_attention,
)
from edgeinfer.errors import CorruptFileError, UnsupportedError

# Tensor -> (rows, columns) or (length,), as names of ``dimensions``.
_SHAPES: Mapping[str, tuple[str, ...]] = {
    "token_embd.weight": ("vocab", "width"),
    "position_embd.weight": ("positions", "width"),
    "token_types.weight": ("token_types", "width"),
    "token_embd_norm.weight": ("width",),
    "token_embd_norm.bias": ("width",),
    "output_norm.weight": ("width",),
    "output.weight": ("vocab", "width"),
    "output_norm.bias": ("width",),
    "attn_norm.weight": ("width",),
    "attn_norm.bias": ("width",),
    "attn_q.weight": ("query_rows", "width"),
    "attn_k.weight": ("keys", "width"),
    "attn_v.weight": ("keys", "width"),
    "attn_output.weight": ("width", "queries"),
    "attn_q.bias": ("queries",),
    "attn_k.bias": ("keys",),
    "attn_v.bias": ("keys",),
    "attn_output.bias": ("width",),
    "attn_output_norm.weight": ("width",),
    "attn_output_norm.bias": ("width",),
    "attn_sinks.weight": ("heads",),
    "attn_q_norm.weight": ("query_norm",),
    "attn_k_norm.weight": ("key_norm",),
    "post_attention_norm.weight": ("width",),
    "ffn_norm.weight": ("width",),
    "ffn_norm.bias": ("width",),
    "ffn_gate.weight": ("dense_ff", "width"),
    "ffn_up.weight": ("dense_ff", "width"),
    "ffn_down.weight": ("width", "dense_ff"),
    "ffn_gate.bias": ("ff",),
    "ffn_up.bias": ("ff",),
    "ffn_down.bias": ("width",),
    "ffn_gate_inp.weight": ("experts", "width"),
    "ffn_gate_inp.bias": ("experts",),
    "exp_probs_b.bias": ("experts",),
    "ffn_gate_exps.weight": ("experts", "ff", "width"),
    "ffn_gate_exps.bias": ("experts", "ff"),
    "ffn_up_exps.weight": ("experts", "ff", "width"),
    "ffn_up_exps.bias": ("experts", "ff"),
    "ffn_down_exps.weight": ("experts", "width", "ff"),
    "ffn_down_exps.bias": ("experts", "width"),
    "post_ffw_norm.weight": ("width",),
    "shortconv.in_proj.weight": ("three_widths", "width"),
    "shortconv.conv.weight": ("width", "taps"),
    "shortconv.out_proj.weight": ("width", "width"),
    "ssm_qkv.weight": ("delta_channels", "width"),
    "ssm_gate.weight": ("delta_values", "width"),
    "ssm_ba.weight": ("two_delta_heads", "width"),
    "ssm_beta.weight": ("delta_heads", "width"),
    "ssm_alpha.weight": ("delta_heads", "width"),
    "ssm_conv1d.weight": ("delta_channels", "taps"),
    "ssm_a": ("delta_heads",),
    "ssm_dt.bias": ("delta_heads",),
    "ssm_norm.weight": ("delta_dim",),
    "ssm_out.weight": ("width", "delta_values"),
    "ffn_gate_inp_shexp.weight": ("width",),
    "ffn_gate_shexp.weight": ("ff", "width"),
    "ffn_up_shexp.weight": ("ff", "width"),
    "ffn_down_shexp.weight": ("width", "ff"),
    "post_ffw_norm_1.weight": ("width",),
    "pre_ffw_norm_2.weight": ("width",),
    "post_ffw_norm_2.weight": ("width",),
    "ffn_gate_inp.scale": ("width",),
    "ffn_down_exps.scale": ("experts",),
    "layer_output_scale.weight": ("one",),
    "per_layer_token_embd.weight": ("vocab", "all_per_layer"),
    "per_layer_model_proj.weight": ("all_per_layer", "width"),
    "per_layer_proj_norm.weight": ("per_layer",),
    "inp_gate.weight": ("per_layer", "width"),
    "proj.weight": ("width", "per_layer"),
    "post_norm.weight": ("width",),
    "altup_proj.weight": ("other_streams", "width", "width"),
    "altup_unembd_proj.weight": ("other_streams", "width", "width"),
    "altup_router.weight": ("streams", "width"),
    "altup_router_norm.weight": ("width",),
    "altup_predict_coef.weight": ("streams_squared", "streams"),
    "altup_correct_coef.weight": ("streams", "streams"),
    "altup_correct_scale.weight": ("width",),
    "laurel_l.weight": ("laurel_rank", "width"),
    "laurel_r.weight": ("width", "laurel_rank"),
    "laurel_post_norm.weight": ("width",),
    "layer_output_norm.weight": ("width",),
    "layer_output_norm.bias": ("width",),
}

# Convolutions and small matrices that engines keep as float32, whatever their type in a file.
FLOATS = frozenset(
    {
        *("shortconv.conv.weight", "ssm_conv1d.weight"),
        *("altup_predict_coef.weight", "altup_correct_coef.weight"),
    }
)

# What a file has of all experts, or streams, in one tensor, the graph has for each:
# "ffn_up.3.weight".
_STACKED: Mapping[str, str] = {
    **{
        f"ffn_{matrix}_exps.{kind}": f"ffn_{matrix}.{{}}.{kind}"
        for matrix in ("gate", "up", "down")
        for kind in ("weight", "bias")
    },
    "altup_proj.weight": "altup_proj.{}.weight",
    "altup_unembd_proj.weight": "altup_unembd_proj.{}.weight",
}

# Matrices of which a token takes a row, and which nothing is multiplied with.
LOOKED_UP = frozenset({"position_embd.weight", "token_types.weight", "per_layer_token_embd.weight"})

_OPTIONAL = frozenset(name for biases in BIAS_TENSORS.values() for name in biases)
_BLOCK = re.compile(r"blk\.(\d+)\.(.+)")


@dataclass(frozen=True, slots=True)
class EngineTensor:
    """A tensor of the graph as rows [row_start, row_start + row_count) of a file's tensor.

    The rows of a vector (norms, biases) are its elements, those of stacked matrices all of theirs;
    of stacked biases each is a row.
    """

    name: str
    source: str
    row_start: int
    row_count: int


def split_name(name: str) -> tuple[str, str]:
    """Splits "blk.3.attn_q.weight" into ("blk.3.", "attn_q.weight"); other names have no block."""
    match = _BLOCK.fullmatch(name)
    return (f"blk.{match[1]}.", match[2]) if match else ("", name)


def graph_shape(config: ModelConfig, kind: str) -> tuple[int, ...]:
    """Returns the shape of a tensor of the graph, such as "attn_q.weight".

    Where layers differ, ``config`` is that of the tensor's, as ``at_layer`` gives it.
    """
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    per_head = config.qk_norm is QkNorm.HEAD
    dimensions = {
        "vocab": config.vocab_size,
        "width": config.width,
        "positions": config.positions,
        "three_widths": 3 * config.width,
        "taps": config.conv_taps,
        "query_rows": 2 * queries if config.attention_gate else queries,
        "delta_channels": config.conv_width(Mixer.DELTA_NET),
        "delta_values": config.delta_heads * config.delta_dim,
        "delta_heads": config.delta_heads,
        "two_delta_heads": 2 * config.delta_heads,
        "delta_dim": config.delta_dim,
        "token_types": config.token_types,
        "ff": config.ff_width,
        "dense_ff": config.dense_ff_width or config.ff_width,
        "one": 1,
        "per_layer": config.per_layer_width,
        "all_per_layer": config.layers * config.per_layer_width,
        "streams": config.streams,
        "other_streams": config.streams - 1,
        "streams_squared": config.streams**2,
        "laurel_rank": config.laurel_rank,
        "experts": config.experts,
        "heads": config.heads,
        "queries": queries,
        "keys": keys,
        "query_norm": config.head_dim if per_head else queries,
        "key_norm": config.head_dim if per_head else keys,
    }
    return tuple(dimensions[d] for d in _SHAPES[kind])


def at_layer(config: ModelConfig, name: str) -> ModelConfig:
    """Returns the numbers of the layer to which a tensor such as "blk.3.attn_q.weight" belongs."""
    match = _BLOCK.fullmatch(name)
    return config.at(int(match[1])) if match and int(match[1]) < config.layers else config


def lacking(arch: Architecture, config: ModelConfig, layer: int) -> frozenset[str]:
    """Returns the kinds of tensor that the family's layers have, but not this one."""
    kinds = frozenset(arch.not_first) if layer == 0 else frozenset()
    if config.mixer(layer) is Mixer.ATTENTION and not config.has_kv(layer):
        return kinds | KV_TENSORS
    return kinds | {"attn_v.weight"} if config.key_is_value(layer) else kinds


def unread(arch: Architecture, config: ModelConfig) -> dict[str, str]:
    """Returns what files may have of layers that read another's keys and values.

    Returns:
        GGUF name -> checkpoint name.
    """
    biases = {ours: theirs for group in BIAS_TENSORS.values() for ours, theirs in group.items()}
    kinds = {**biases, **arch.block_tensors()}
    return {
        f"blk.{i}.{kind}": arch.blocks.format(i) + kinds[kind]
        for i in range(config.layers)
        if config.mixer(i) is Mixer.ATTENTION and not config.has_kv(i)
        for kind in sorted(KV_TENSORS & kinds.keys())
    }


def repeated(arch: Architecture, config: ModelConfig) -> dict[str, str]:
    """Returns what a file has of such layers, a copy of what they read, for llama.cpp to open it.

    Returns:
        GGUF name -> checkpoint name.
    """
    if not arch.requires_kv:
        return {}
    kinds = {ours: theirs for ours, theirs in arch.block_tensors().items() if ours in KV_TENSORS}
    return {
        f"blk.{i}.{ours}": arch.blocks.format(source) + theirs
        for i, source in enumerate(config.layer_kv)
        if source != i
        for ours, theirs in kinds.items()
    }


def graph_tensors(
    arch: Architecture, config: ModelConfig, mixer: Mixer = Mixer.ATTENTION
) -> tuple[str, ...]:
    """Returns the kinds of tensor a block must have, fused ones taken apart."""
    block = arch.block_tensors(config.experts > 0, mixer, config.per_layer_width > 0)
    return _apart(arch, block)


def _apart(arch: Architecture, kinds: Iterable[str]) -> tuple[str, ...]:
    return tuple(part for kind in kinds for part in arch.fused.get(kind, (kind,)))


def file_shape(arch: Architecture, config: ModelConfig, name: str) -> tuple[int, ...]:
    """Returns the shape a converter writes for a tensor: parts of a fused one add up.

    Args:
        arch: the family.
        config: the model's numbers.
        name: of the tensor, or only its kind, such as "attn_q.weight", where layers are alike.
    """
    kind, numbers = split_name(name)[1], at_layer(config, name)
    parts = [graph_shape(numbers, part) for part in arch.fused.get(kind, (kind,))]
    return (sum(shape[0] for shape in parts), *parts[0][1:])


def checkpoint_names(
    arch: Architecture, config: ModelConfig, settings: Mapping[str, Any]
) -> dict[str, str]:
    """Returns GGUF name -> checkpoint name of every tensor a model must have, in file order.

    The name of a tensor that stacks several, such as the experts', has "{}" for their number.

    Args:
        arch: the family.
        config: the model's numbers.
        settings: config.json; its switches say which biases there are.
    """
    names = arch.model_tensors(config.tied_output, config.per_layer_width > 0)
    for i in range(config.layers):
        lacks = lacking(arch, config, i)
        for ours, theirs in _block(arch, config.at(i), settings, config.mixer(i)).items():
            if ours in lacks:
                continue
            names[f"blk.{i}.{ours}"] = arch.blocks.format(i) + theirs
    return names


def _block(
    arch: Architecture, config: ModelConfig, settings: Mapping[str, Any], mixer: Mixer
) -> dict[str, str]:
    block = arch.block_tensors(config.experts > 0, mixer, config.per_layer_width > 0)
    for switch, biases in BIAS_TENSORS.items():
        if settings.get(switch):
            block |= {
                ours: theirs
                for ours, theirs in biases.items()
                if mixer is Mixer.ATTENTION or not is_of_attention(ours)
            }
    return block


def packed_shapes(shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Returns what stands for stacked matrices of floats that are stored as MXFP4.

    Args:
        shape: of the floats, (experts, columns, rows).

    Returns:
        What the names end with -> shape, rows first: the blocks' bytes, and their scales.
    """
    experts, columns, rows = shape
    return {
        "_blocks": (experts, rows, columns // 32, 16),
        "_scales": (experts, rows, columns // 32),
    }


def is_packed(arch: Architecture, name: str, spelled: Container[str]) -> bool:
    """Says whether a checkpoint has blocks and scales in place of a tensor."""
    return bool(arch.hf_quantised) and name not in spelled and f"{name}_blocks" in spelled


def usual_name(arch: Architecture, name: str) -> str:
    """Returns a checkpoint tensor's name in the usual spelling."""
    for suffix, usual in arch.suffixes.items():
        if name.endswith(suffix):
            name = name.removesuffix(suffix) + usual
    headless = HEADLESS if arch.blocks == USUAL_BLOCKS else {}
    for prefix, usual in {**headless, **arch.prefixes}.items():
        if name.startswith(prefix):
            return usual + name[len(prefix) :]
    return name


def engine_tensors(
    arch: Architecture, config: ModelConfig, shapes: Mapping[str, tuple[int, ...]]
) -> list[EngineTensor]:
    """Finds every tensor of the graph in a file.

    Args:
        arch: the family.
        config: the model's numbers.
        shapes: the file's tensors: name -> (rows, columns) or (length,).

    Raises:
        CorruptFileError: a tensor is missing or has the wrong shape.
        UnsupportedError: a tensor is not part of the family's graph.
    """
    unused = set(shapes) - set(ROPE_TENSORS.values()) - set(unread(arch, config))
    if arch.predicts_ahead:
        unused = {name for name in unused if not _is_beyond(name, config)}
    found: list[EngineTensor] = []
    for kind in _apart(arch, arch.model_tensors(config.tied_output, config.per_layer_width > 0)):
        found += _unstacked(_find(arch, config, shapes, "", kind), shapes)
    layers = [graph_tensors(arch, config.at(i), config.mixer(i)) for i in range(config.layers)]
    for i in range(config.layers):
        lacks = lacking(arch, config, i)
        for kind in layers[i]:
            if kind in lacks:
                continue
            found += _unstacked(_find(arch, config, shapes, f"blk.{i}.", kind), shapes)
    for kind in sorted(_OPTIONAL.difference(*layers)):
        found += _find_in_all_blocks(arch, config, shapes, kind)
    unused -= {tensor.source for tensor in found}
    if unused:
        listed = ", ".join(sorted(unused)[:5]) + (", ..." if len(unused) > 5 else "")
        raise UnsupportedError(f"tensors that {arch.name} does not have: {listed}")
    return found


def _is_beyond(name: str, config: ModelConfig) -> bool:
    match = _BLOCK.fullmatch(name)
    return match is not None and int(match[1]) >= config.layers


def _find_in_all_blocks(
    arch: Architecture, config: ModelConfig, shapes: Mapping[str, tuple[int, ...]], kind: str
) -> Iterator[EngineTensor]:
    """Finds an optional tensor: in every block or in none."""
    blocks = [
        f"blk.{i}."
        for i in range(config.layers)
        if (config.mixer(i) is Mixer.ATTENTION or not is_of_attention(kind))
        and kind not in lacking(arch, config, i)
    ]
    if any(_holder(arch, shapes, block, kind) for block in blocks):
        for block in blocks:
            yield _find(arch, config, shapes, block, kind)


def _find(
    arch: Architecture,
    config: ModelConfig,
    shapes: Mapping[str, tuple[int, ...]],
    block: str,
    kind: str,
) -> EngineTensor:
    holder = _holder(arch, shapes, block, kind)
    if holder is None:
        raise CorruptFileError(f"tensor '{block}{kind}' is missing")
    source, parts = holder
    numbers = at_layer(config, block + kind)
    wanted = [graph_shape(numbers, part) for part in parts]
    # Experts' matrices lie together expert by expert.
    axis = 1 if len(wanted[0]) > 2 else 0
    joined = sum(shape[axis] for shape in wanted)
    expected = (*wanted[0][:axis], joined, *wanted[0][axis + 1 :])
    if tuple(shapes[source]) != expected:
        raise CorruptFileError(
            f"tensor '{source}' has shape {tuple(shapes[source])}, expected {expected}"
        )
    rows = [shape[axis] for shape in wanted]
    at = parts.index(kind)
    return EngineTensor(block + kind, source, sum(rows[:at]), rows[at])


def _unstacked(
    tensor: EngineTensor, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[EngineTensor]:
    """Takes stacked matrices, or their biases, apart; others are yielded as they are."""
    block, kind = split_name(tensor.name)
    if kind not in _STACKED:
        yield tensor
        return
    source = shapes[tensor.source]
    matrices = len(source) > 2
    rows, step = (tensor.row_count, source[1]) if matrices else (1, 1)
    first = tensor.row_start if matrices else 0
    for part in range(source[0]):
        name = block + _STACKED[kind].format(part)
        yield EngineTensor(name, tensor.source, first + part * step, rows)


def _holder(
    arch: Architecture, shapes: Mapping[str, tuple[int, ...]], block: str, kind: str
) -> tuple[str, tuple[str, ...]] | None:
    """Finds the file's tensor that holds ``kind``, and all that it holds, in row order."""
    for fused, parts in arch.fused.items():
        alone = [block + part for part in parts if part != fused]
        if kind in parts and block + fused in shapes and not any(a in shapes for a in alone):
            return block + fused, parts
    return (block + kind, (kind,)) if block + kind in shapes else None
