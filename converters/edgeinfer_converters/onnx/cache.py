"""The cache of an exported graph: floats, or 8 bits with a scale for each channel of a layer.

onnxruntime's GroupQueryAttention multiplies a quantised cache by scales that are part of the
model, so they are taken here from what the model's own keys and values are on a text. A channel's
scale puts the largest value seen at the largest code.

Keys are kept rotated, and lanes that turn slowly have turned little within a text but will have
in a longer one. So a pair of lanes shares a scale, from the length of the pair, which turning
does not change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeinfer.arch import ModelConfig
from edgeinfer.arch.config import RopeStyle
from edgeinfer.calibration.text import calibration_text
from edgeinfer.errors import UsageError
from edgeinfer.formats.onnx_library import onnxruntime
from edgeinfer.tokenizer import Tokenizer

Floats = NDArray[np.float32]
CacheScales = Sequence[tuple[Floats, Floats]]

TYPES = ("f32", "f16", "int8")
_CHARACTERS, _CHUNK, _CHUNKS = 16_000, 256, 8  # of the text; tokens of a piece, and pieces
_LARGEST = 127  # code
_SMALLEST = 1e-6  # scale of a channel that is always 0


@dataclass(frozen=True, slots=True)
class Cache:
    """The type of cached keys and values; ``scales`` of int8 are (keys', values') for each layer.

    A scale is for a channel: float32 (kv_heads * head_dim,).
    """

    type: str
    scales: CacheScales = ()


def check_type(cache: str, floats: str) -> None:
    """Checks that a graph of such floats can have a cache.

    Raises:
        UsageError: it cannot.
    """
    if cache not in TYPES:
        raise UsageError(f"no cache of type {cache!r}", hint=f"use one of {', '.join(TYPES)}")
    if floats == "f16" and cache == "f32":
        raise UsageError("a graph of f16 has a cache of f16 or int8", hint="use -q f32")


def measured(
    graph: Path, config: ModelConfig, tokenizer: Tokenizer, *, context: int, threads: int
) -> CacheScales:
    """Lets a graph with a cache of floats read a text, and returns the scales of each layer.

    Raises:
        UnsupportedError: onnxruntime is not installed.
    """
    library = onnxruntime()
    options = library.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = library.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    most: dict[str, Floats] = {}
    for made in _caches(session, _pieces(tokenizer, min(_CHUNK, context))):
        for name, cache in made.items():
            layer, part = name.split(".")[1:]
            seen = _largest(cache[0].astype(np.float32), config, int(layer), part == "key")
            most[name] = np.maximum(most.get(name, np.float32(_SMALLEST * _LARGEST)), seen)
    return [
        (
            most[f"present.{i}.key"].reshape(-1) / np.float32(_LARGEST),
            most[f"present.{i}.value"].reshape(-1) / np.float32(_LARGEST),
        )
        for i in range(config.layers)
    ]


def _pieces(tokenizer: Tokenizer, size: int) -> Iterable[list[int]]:
    tokens = tokenizer.encode(calibration_text()[:_CHARACTERS], parse_special=False)
    first = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    step = max(size - len(first), 1)
    return islice(
        ([*first, *tokens[at : at + step]] for at in range(0, len(tokens), step)), _CHUNKS
    )


def _caches(session: Any, pieces: Iterable[list[int]]) -> Iterable[Mapping[str, NDArray[Any]]]:
    """Yields keys and values, (1, heads, tokens, lanes), of each piece."""
    names = [out.name for out in session.get_outputs() if out.name.startswith("present.")]
    empty = {
        value.name: np.zeros(
            (1, value.shape[1], 0, value.shape[3]),
            np.float16 if "float16" in value.type else np.float32,
        )
        for value in session.get_inputs()
        if value.name.startswith("past_key_values.")
    }
    for piece in pieces:
        ids = np.array([piece], np.int64)
        fed = {"input_ids": ids, "attention_mask": np.ones_like(ids), **empty}
        yield dict(zip(names, session.run(names, fed), strict=True))


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
