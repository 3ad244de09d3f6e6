"""Embeddings beside llama.cpp: tokens per second of many texts read at once by models like BERT.

Both are given the same tokens and give a vector of length 1 a text, the mean of its tokens' states.
Ours reads texts as ``Model.embed`` does. llama.cpp by its C API reads them both ways that it has,
together in batches of as many tokens and one by one; compared with is the faster one. The two run
in turns, and the ratio is the median over the rounds, of the same round, with its least and most.

    python benchmarks/make_model.py bge-small q8_0 bge-small-q8_0.gguf
    python benchmarks/embeddings.py bge-small-q8_0.gguf --lengths 16 128 512
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import record
from numpy.typing import NDArray

import edgeinfer
from edgeinfer.runtime.embedding import vectors_of

Vectors = NDArray[np.float32]
Texts = Sequence[Sequence[int]]
MOST_TEXTS = 64  # of a batch of llama.cpp
AGREE = 0.99  # the least dot product of the two's vectors
COLUMNS = {
    "model": "s",
    "threads": "d",
    "texts": "d",
    "text_tokens": "d",
    "ours": ".0f",
    "together": ".0f",
    "one_by_one": ".0f",
    "ours_is": "s",
    "agreement": ".5f",
}


class LlamaCppEmbedder:
    """A model in llama.cpp that pools by itself."""

    def __init__(self, path: Path, *, batch: int, threads: int) -> None:
        self._silence = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self._silence, None)
        llama_cpp.llama_backend_init()
        self._model = llama_cpp.llama_model_load_from_file(
            str(path).encode(), llama_cpp.llama_model_default_params()
        )
        assert self._model, path
        self.width = llama_cpp.llama_model_n_embd(self._model)
        params = llama_cpp.llama_context_default_params()
        params.embeddings = True
        params.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_MEAN
        params.n_ctx = params.n_batch = params.n_ubatch = params.n_outputs_max = batch
        params.n_seq_max = MOST_TEXTS
        params.n_threads = params.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        assert self._context
        self._size = batch
        self._batch = llama_cpp.llama_batch_init(batch, 0, 1)

    def together(self, texts: Texts) -> Vectors:
        """As many texts a call as a batch holds."""
        most = min(MOST_TEXTS, self._size // max(map(len, texts)))
        return self._vectors(texts, most)

    def one_by_one(self, texts: Texts) -> Vectors:
        """A text a call."""
        return self._vectors(texts, 1)

    def _vectors(self, texts: Texts, most: int) -> Vectors:
        groups = [texts[at : at + most] for at in range(0, len(texts), most)]
        vectors = np.concatenate([self._read(group) for group in groups])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def _read(self, group: Texts) -> Vectors:
        lengths = [len(text) for text in group]
        count = self._batch.n_tokens = sum(lengths)
        view = np.ctypeslib.as_array
        view(self._batch.token, (count,))[:] = np.concatenate(group)
        view(self._batch.pos, (count,))[:] = np.concatenate([np.arange(n) for n in lengths])
        view(self._batch.n_seq_id, (count,))[:] = 1
        view(self._batch.logits, (count,))[:] = 1
        for place, number in enumerate(np.repeat(np.arange(len(group)), lengths).tolist()):
            self._batch.seq_id[place][0] = number
        status = llama_cpp.llama_encode(self._context, self._batch)
        assert status == 0, status
        found = [
            view(llama_cpp.llama_get_embeddings_seq(self._context, number), (self.width,))
            for number in range(len(group))
        ]
        return np.stack(found)

    def close(self) -> None:
        """Gives everything back."""
        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)


def rows_of(
    path: Path, lengths: Sequence[int], *, total: int, batch: int, threads: int, rounds: int
) -> Iterator[dict[str, Any]]:
    """A row a length of text, with as many texts as make ``total`` tokens."""
    options: dict[str, Any] = {"threads": threads, "batch": batch, "offline": True}
    model = edgeinfer.load(path, backend="native", context=max(lengths), **options)
    peer = LlamaCppEmbedder(path, batch=batch, threads=threads)

    def ours(texts: Texts) -> Vectors:
        return vectors_of(
            model.engine, texts, open_sequence=model.open_sequence, batch=model.plan.batch
        )

    ways: dict[str, Callable[[Texts], Vectors]] = {
        "ours": ours,
        "together": peer.together,
        "one_by_one": peer.one_by_one,
    }
    for length in lengths:
        draw = np.random.default_rng(length)
        vocabulary = model.engine.config.vocab_size
        texts = draw.integers(0, vocabulary, (max(1, total // length), length)).tolist()
        found = {name: way(texts) for name, way in ways.items()}  # and warms up
        agreement = float((found["ours"] * found["one_by_one"]).sum(axis=1).min())
        assert agreement > AGREE, (path, length, agreement)
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                start = time.perf_counter()
                way(texts)
                rates[name].append(len(texts) * length / (time.perf_counter() - start))
        typical = {name: statistics.median(samples) for name, samples in rates.items()}
        better = max(("together", "one_by_one"), key=lambda name: typical[name])
        ratios = [a / b for a, b in zip(rates["ours"], rates[better], strict=True)]
        middle, least, most = statistics.median(ratios), min(ratios), max(ratios)
        yield {
            "model": path.stem,
            "threads": threads,
            "texts": len(texts),
            "text_tokens": length,
            **typical,
            "ratio": middle,
            "ours_is": f"{middle:.2f}x ({least:.2f} to {most:.2f})",
            "agreement": agreement,
            "samples": rates,
        }
    peer.close()
    model.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path, help="GGUF files")
    parser.add_argument("--lengths", type=int, nargs="+", default=[16, 128, 512])
    parser.add_argument("--total", type=int, default=2048, help="tokens of all texts")
    parser.add_argument("-b", "--batch", type=int, default=512)
    parser.add_argument("-t", "--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("-r", "--rounds", type=int, default=5)
    options = parser.parse_args()
    rows = [
        row
        for path in options.models
        for row in rows_of(
            path,
            options.lengths,
            total=options.total,
            batch=options.batch,
            threads=options.threads,
            rounds=options.rounds,
        )
    ]
    about = record.context(["llama-cpp-python"])
    about |= {"batch": options.batch, "rounds": options.rounds}
    record.save("embeddings", about, rows)
    print(record.table(rows, COLUMNS))


if __name__ == "__main__":
    main()
