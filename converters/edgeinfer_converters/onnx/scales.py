"""The scales of a cache of 8 bits: how large a model's keys and values are on a text.

onnxruntime's GroupQueryAttention multiplies a quantised cache by scales that are part of the
model, so they are taken here from what the model's own keys and values are on a text. A channel's
scale puts the largest value seen at the largest code.

Keys are kept rotated, and lanes that turn slowly have turned little within a text but will have
in a longer one. So a pair of lanes shares a scale, from the length of the pair, which turning
does not change.

The whole text goes through a layer before the next one is loaded, so that a layer's weights at a
time are in memory, of floats some rows of a matrix, and never the model.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Sequence
from io import BufferedRandom
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeinfer.arch import ModelConfig
from edgeinfer.arch.config import RopeStyle
from edgeinfer.calibration.text import calibration_text
from edgeinfer.device.resident import trim_heap
from edgeinfer.formats.onnx_library import onnxruntime
from edgeinfer.tokenizer import Tokenizer
from edgeinfer_converters.onnx.cache import Cache, CacheScales, Floats
from edgeinfer_converters.onnx.decoder import draw_layer
from edgeinfer_converters.onnx.graph import Graph
from edgeinfer_converters.onnx.parts import Parts
from edgeinfer_converters.onnx.weights import Weights

_CHARACTERS, _CHUNK, _CHUNKS = 16_000, 256, 8  # of the text; tokens of a piece, and pieces
_ROWS = 32  # tokens of a step, for which a layer's products are in memory
_ROWS_OF_FLOATS = 256  # of which fewer are, but the matrices are read anew each step
_MATRICES = 16 << 20  # bytes of matrices of floats that are in memory at a time
_LARGEST = 127  # code
_SMALLEST = 1e-6  # scale of a channel that is always 0
_KINDS = {"f32": np.float32, "f16": np.float16}


def measured(
    file: BufferedRandom,
    config: ModelConfig,
    weights: Weights,
    pieces: Iterable[Sequence[int]],
    *,
    folder: Path,
    context: int,
    threads: int,
) -> CacheScales:
    """Lets the layers of a written model read a text, and returns the scales of each.

    Args:
        file: its data, which lies in ``folder``.
        config: its numbers.
        weights: where they are in the data.
        pieces: tokens, each piece read from its own start.
        folder: where onnxruntime finds the data.
        context: tokens it can read.
        threads: of onnxruntime.

    Raises:
        UnsupportedError: onnxruntime is not installed.
    """
    library, floats = onnxruntime(), weights.recipe.floats
    options = library.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.enable_cpu_mem_arena = False  # what a layer took is given back
    for key, value in (
        ("intra_op.allow_spinning", "0"),
        ("model_external_initializers_file_folder_path", str(folder)),
    ):
        options.add_session_config_entry(f"session.{key}", value)

    def session(model: bytes) -> Any:
        return library.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    states = [_embedded(file, config, weights, tokens) for tokens in pieces]
    scales = []
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    for layer in range(config.layers):
        trim_heap()  # of what came before
        graph = Graph(floats)
        draw_layer(graph, config, weights, context, Cache(floats), layer)
        parts = Parts(graph.serialized(""), _MATRICES, session, data)
        keys, values = _read(parts, config, layer, states)
        del parts  # before the next ones are made
        scales.append((keys / np.float32(_LARGEST), values / np.float32(_LARGEST)))
    return scales


def pieces(tokenizer: Tokenizer, context: int) -> Sequence[Sequence[int]]:
    """The text that is read, in pieces that a model for ``context`` tokens can read."""
    tokens = tokenizer.encode(calibration_text()[:_CHARACTERS], parse_special=False)
    first = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    step = max(min(_CHUNK, context) - len(first), 1)
    starts = range(0, len(tokens), step)[:_CHUNKS]
    return [[*first, *tokens[at : at + step]] for at in starts]


def _embedded(
    file: BufferedRandom, config: ModelConfig, weights: Weights, tokens: Sequence[int]
) -> NDArray[Any]:
    """What the first layer reads, (tokens, width), in the graph's floats."""
    matrix = weights.matrix("token_embd.weight")
    states = np.concatenate([weights.read(file, matrix, token, token + 1) for token in tokens])
    states *= config.embedding_scale
    if config.positions:
        table = weights.matrix("position_embd.weight")
        states += weights.read(file, table, 0, len(tokens))
    return states.astype(_KINDS[weights.recipe.floats])


def _read(
    parts: Parts, config: ModelConfig, layer: int, states: list[NDArray[Any]]
) -> tuple[Floats, Floats]:
    """Replaces states, (tokens, width), by what a layer makes of them.

    Returns the largest keys and values of each channel, (heads * lanes,).
    """
    names = [f"{layer}.{part}" for part in ("key", "value")]
    step = _ROWS_OF_FLOATS if parts.has_blocks else _ROWS
    most = [np.full((config.kv_heads, config.head_dim), _SMALLEST * _LARGEST, np.float32)] * 2
    for hidden in states:
        caches = [np.zeros((1, config.kv_heads, 0, config.head_dim), hidden.dtype)] * 2
        for at in range(0, len(hidden), step):
            rows = hidden[at : at + step]
            past = {f"past_key_values.{n}": c for n, c in zip(names, caches, strict=True)}
            seen = np.ones((1, at + len(rows)), np.int64)
            made = parts({"hidden_states": rows[None], "attention_mask": seen, **past})
            caches = [made[f"present.{name}"] for name in names]
            rows[:] = made["layer_states"][0]
        for part, cache in enumerate(caches):
            largest = _largest(cache[0].astype(np.float32), config, layer, part == 0)
            most[part] = np.maximum(most[part], largest)
    keys, values = (part.reshape(-1) for part in most)
    return keys, values


def _largest(cache: Floats, config: ModelConfig, layer: int, is_keys: bool) -> Floats:
    """The largest size of each channel, (heads, lanes); of rotated pairs, of the pair."""
    squares = np.square(cache)  # (heads, tokens, lanes)
    table = config.layer_rope[layer]
    if is_keys and table >= 0:
        turned = 2 * len(config.rope_tables[table].inverse_frequencies)
        shape = (*squares.shape[:2], 2, -1)
        axis = 2
        if config.rope_style is RopeStyle.NEIGHBOURS:
            shape, axis = (*squares.shape[:2], -1, 2), 3
        pairs = squares[..., :turned].reshape(shape)
        sums = np.broadcast_to(pairs.sum(axis=axis, keepdims=True), pairs.shape)
        squares[..., :turned] = sums.reshape(*squares.shape[:2], turned)
    largest: Floats = np.sqrt(squares.max(axis=1))
    return largest
