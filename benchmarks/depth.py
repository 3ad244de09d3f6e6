"""Decoding behind a long context, ours beside llama.cpp with its flash attention.

Reading 32,768 tokens takes llama.cpp a quarter of an hour, and decoding does not depend on what
the keys and values are, only on how many. So both engines read a short text once, and their saved
state is repeated to the depth asked for. The engines take turns, round by round, and the stream
ceiling is measured after each.

    python benchmarks/depth.py llama1b-q4_0.gguf -d 8192 32768 --kv f16 q8_0 --threads 2
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import llama_cpp
import numpy as np
import record
from llamacpp_peer import LlamaCpp

import edgeinfer
from edgeinfer.backends.base import Slice, StateKeeper
from edgeinfer.device import ceilings

TILE = 256  # tokens that are read; the native cache's blocks hold as many
ROOM = 64  # tokens of context beyond the depth
COLUMNS = {
    "model": ("model", "s"),
    "threads": ("threads", "d"),
    "kv": ("kv", "s"),
    "depth": ("depth", "d"),
    "rounds": ("rounds", "d"),
    "stream GB/s": ("stream", ".0f"),
    "edgeinfer tokens/s": ("ours", ".1f"),
    "llama.cpp tokens/s": ("llama_cpp", ".1f"),
    "ratio": ("ratio", ".2f"),
    "least": ("least", ".2f"),
    "most": ("most", ".2f"),
}


class Deep(Protocol):
    """An engine whose context can be filled at once."""

    def fill(self, depth: int) -> None:
        """Makes the context ``depth`` tokens long."""

    def decode(self, tokens: Sequence[int], depth: int) -> float:
        """Tokens per second of single steps behind ``depth`` tokens."""


class Ours:
    """The native engine."""

    def __init__(self, path: Path, *, context: int, threads: int, kv: str) -> None:
        model = edgeinfer.load(
            path,
            backend="native",
            context=context,
            threads=threads,
            kv_type_k=kv,
            kv_type_v=kv,
            offline=True,
        )
        self._engine = model.open_sequence().engine
        self._sequence = self._engine.open()

    def fill(self, depth: int) -> None:
        """Repeats the blocks of the first tokens: a block holds all layers."""
        assert isinstance(self._engine, StateKeeper)
        tokens = tuple(range(TILE))
        self._engine.step([Slice(sequence=self._sequence, tokens=tokens, wants_logits=1)])
        state = self._engine.save_state(self._sequence)
        self._engine.close(self._sequence)
        self._sequence = self._engine.open()
        self._engine.restore_state(self._sequence, bytes(state) * (depth // TILE), depth)

    def decode(self, tokens: Sequence[int], depth: int) -> float:
        """As ``Deep.decode``."""
        self._engine.trim(self._sequence, depth)
        start = time.perf_counter()
        for token in tokens:
            self._engine.step([Slice(sequence=self._sequence, tokens=(token,), wants_logits=1)])
        return len(tokens) / (time.perf_counter() - start)


class Theirs:
    """llama.cpp, flash attention on."""

    def __init__(self, path: Path, *, context: int, threads: int, kv: str) -> None:
        self._peer = LlamaCpp(
            path,
            context=context,
            batch=512,
            threads=threads,
            kv_types=(kv, kv),
            flash_attention=True,
        )

    def fill(self, depth: int) -> None:
        """Repeats the rows of its sequence state, layer by layer."""
        self._peer.step(list(range(TILE)))
        context = self._peer.context
        size = llama_cpp.llama_state_seq_get_size(context, 0)
        buffer = (ctypes.c_uint8 * size)()
        assert llama_cpp.llama_state_seq_get_data(context, buffer, size, 0) == size
        deep = repeated(bytes(buffer), depth)
        self._peer.clear()
        filled = (ctypes.c_uint8 * len(deep)).from_buffer_copy(deep)
        assert llama_cpp.llama_state_seq_set_data(context, filled, len(deep), 0) == len(deep)

    def decode(self, tokens: Sequence[int], depth: int) -> float:
        """As ``Deep.decode``."""
        self._peer.trim(depth)
        start = time.perf_counter()
        for token in tokens:
            self._peer.step([token])
        return len(tokens) / (time.perf_counter() - start)


def repeated(state: bytes, depth: int) -> bytes:
    """A llama.cpp state of one sequence and stream, its rows repeated to ``depth`` cells.

    The layout: a magic number, the sequence, streams, cells; then position, sequence count and
    sequence of each cell; whether values are transposed, and layers; then for each layer's keys,
    and again for its values, the type, the bytes of a row, and the rows.
    """
    streams, cells = struct.unpack_from("<II", state, 8)
    assert (streams, cells) == (1, TILE), (streams, cells)
    at = 16 + 12 * cells
    transposed, layers = struct.unpack_from("<II", state, at)
    assert not transposed
    parts = [state[:12], struct.pack("<I", depth)]
    parts += [struct.pack("<iIi", position, 1, 0) for position in range(depth)]
    parts.append(state[at : at + 8])
    at += 8
    for _ in range(2 * layers):
        (row_bytes,) = struct.unpack_from("<Q", state, at + 4)
        rows = at + 12
        parts += [state[at:rows], state[rows : rows + cells * row_bytes] * (depth // TILE)]
        at = rows + cells * row_bytes
    assert at == len(state), (at, len(state))
    return b"".join(parts)


def compare(
    path: Path, *, depth: int, kv: str, threads: int, rounds: int, new_tokens: int
) -> dict[str, Any]:
    """One row: both engines at one depth."""
    engines: dict[str, Deep] = {}
    for name, kind in (("ours", Ours), ("llama_cpp", Theirs)):
        engines[name] = kind(path, context=depth + ROOM, threads=threads, kv=kv)
        engines[name].fill(depth)
    tokens = np.random.default_rng(0).integers(0, 1000, new_tokens).tolist()
    speeds: dict[str, list[float]] = {name: [] for name in engines}
    streams = []
    for engine in engines.values():
        engine.decode(tokens[:1], depth)
    for _ in range(rounds):
        for name, engine in engines.items():
            speeds[name].append(engine.decode(tokens, depth))
            streams.append(ceilings.measure(threads, 0.3).stream_bytes_per_second / 1e9)
    ratios = [a / b for a, b in zip(speeds["ours"], speeds["llama_cpp"], strict=True)]
    return {
        "model": path.stem,
        "threads": threads,
        "kv": kv,
        "depth": depth,
        "rounds": rounds,
        "stream": statistics.median(streams),
        **{name: statistics.median(values) for name, values in speeds.items()},
        "ratio": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
    }


def main() -> None:
    """Prints the table and, if asked to, saves it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("-d", "--depth", type=int, nargs="+", default=[8192, 32768])
    parser.add_argument("--kv", nargs="+", default=["f16"])
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-r", "--rounds", type=int, default=3)
    parser.add_argument("-n", "--new-tokens", type=int, default=16)
    parser.add_argument("--save", metavar="NAME", help="write results/NAME.json")
    options = parser.parse_args()
    if any(depth % TILE for depth in options.depth):
        parser.error(f"depths are multiples of {TILE}")
    about = record.context(["llama-cpp-python"])
    rows = [
        compare(
            options.model,
            depth=depth,
            kv=kv,
            threads=options.threads,
            rounds=options.rounds,
            new_tokens=options.new_tokens,
        )
        for depth in options.depth
        for kv in options.kv
    ]
    titles = [{title: row[key] for title, (key, _) in COLUMNS.items()} for row in rows]
    print(record.table(titles, {title: form for title, (_, form) in COLUMNS.items()}))
    if options.save:
        print(record.save(options.save, about, rows))


if __name__ == "__main__":
    main()
