"""How do the encoders compare with llama.cpp's: weight error, divergence and time?

SmolLM2 is written in f16; for every mix edgeinfer and llama.cpp make a file of it. Both files have
the same types, tensor by tensor (checked), so the same size. Compared are

- the weights: root mean square of the error over that of the weights;
- next-token distributions: mean Kullback-Leibler divergence from the f16 file's, each file run by
  both engines against that engine's own f16;
- encoding: processor time of a thread per million float32 values of SmolLM2's matrices, for the
  mix's main type; the encoders alone, as both tools call them.

K-quants take whole blocks of 256 columns, so they are given SmolLM2 padded from 576 to 768 columns,
which computes the same function.

With --calibrate both are given the same importance matrix, which edgeinfer collects; the types of
few bits cannot be without.

    python benchmarks/encoders.py --model SmolLM2.gguf [--recipes q4_k_m q4_0] [--times]
                                  [--calibrate]
"""

from __future__ import annotations

import argparse
import ctypes
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import record
import requantize
import torch
from gguf import GGMLQuantizationType
from llamacpp_peer import LlamaCpp, quantize
from numpy.typing import NDArray
from quality import CHUNK, ours, theirs

import edgeinfer
from edgeinfer import quant
from edgeinfer.calibration.collect import collect
from edgeinfer.calibration.opened import open_model
from edgeinfer.calibration.text import calibration_text
from edgeinfer.formats.gguf import open_gguf
from edgeinfer.quant.assignment import Overrides
from edgeinfer.quant.recipes import NEED_IMPORTANCE, RECIPES, get_recipe
from edgeinfer.runtime.evaluation import text_chunks

SKIPPED = {"f32", "f16", "bf16", "mxfp4_moe"}  # nothing is searched for; no dense model
NEEDS_IMPORTANCE = {name for name, r in RECIPES.items() if r.needs_importance}
CALIBRATED_ON = 32  # chunks
TIMED_VALUES = 1536 << 10  # of the largest matrix: more than a cache holds
QUALITY = {
    "recipe": "s",
    "model": "s",
    "bpw": ".2f",
    "error": ".4%",
    "peer_error": ".4%",
    "error_ratio": ".3f",
    "kl": ".5f",
    "peer_kl": ".5f",
    "kl_ratio": ".3f",
    "kl_ratio_error": ".3f",
    "kl_in_llamacpp": ".5f",
    "peer_kl_in_llamacpp": ".5f",
    "ratio_in_llamacpp": ".3f",
    "ratio_in_llamacpp_error": ".3f",
}
TIMES = {
    "type": "s",
    "mvalues": ".0f",
    "peer_mvalues": ".0f",
    "speedup": ".1f",
    "weighted_mvalues": ".0f",
    "weighted_peer_mvalues": ".0f",
    "weighted_speedup": ".1f",
}


Importance = Mapping[str, NDArray[np.float32]]


def llama_quantize(
    source: Path, target: Path, recipe: str, threads: int, importance: Importance | None = None
) -> None:
    params = llama_cpp.llama_model_quantize_default_params()
    dense_mxfp4 = recipe == "mxfp4"  # which llama.cpp has a name for among experts only
    name = "mxfp4_moe" if dense_mxfp4 else recipe
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{name.upper()}")
    params.pure = dense_mxfp4
    params.nthread = threads
    if importance is not None:
        record_of = llama_cpp.llama_model_imatrix_data
        pointer = ctypes.POINTER(ctypes.c_float)
        entries = [
            record_of(name.encode(), values.ctypes.data_as(pointer), values.size)
            for name, values in importance.items()
        ]
        params.imatrix = (record_of * (len(entries) + 1))(*entries)
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), params):
        raise SystemExit(f"llama.cpp did not write {recipe}")


def matrices(path: Path) -> Iterator[tuple[str, str, NDArray[np.float32]]]:
    """Name, type and decoded values."""
    with open_gguf(path) as file:
        for name, tensor in file.tensors.items():
            if len(tensor.shape) > 1:
                type_ = quant.get(tensor.type)
                yield name, tensor.type, quant.decode(type_, file.data(name), tensor.shape[-1])


def compare_weights(
    source: Path, mine: Path, peer: Path, importance: Importance | None = None
) -> tuple[float, float]:
    """Relative errors of both files, weighted if so; they must have the same types."""
    errors, size = np.zeros(2), 0.0
    peers = {name: (type_, values) for name, type_, values in matrices(peer)}
    exact = {name: values for name, _, values in matrices(source)}
    for name, type_, values in matrices(mine):
        peer_type, peer_values = peers[name]
        assert type_ == peer_type, (name, type_, peer_type)
        wanted = exact[name].astype(np.float64)
        weights = importance[name] if importance and name in importance else np.ones((1, 1))
        weights = np.repeat(weights, len(wanted) // len(weights), axis=0)  # of stacked matrices
        errors += [np.sum(weights * (given - wanted) ** 2) for given in (values, peer_values)]
        size += float(np.sum(weights * wanted**2))
    found = np.sqrt(errors / size)
    return float(found[0]), float(found[1])


def log_softmax(logits: NDArray[np.float32]) -> torch.Tensor:
    return torch.log_softmax(torch.from_numpy(np.array(logits)), dim=1)


def divergence(
    reference: Sequence[torch.Tensor], logits: Iterator[NDArray[np.float32]]
) -> NDArray[np.float64]:
    """Mean KL of each chunk, nats."""
    found = []
    for p, chunk in zip(reference, logits, strict=True):
        q = log_softmax(chunk)
        found.append(float((p.exp() * (p - q)).sum(dim=1, dtype=torch.float64).mean()))
    return np.array(found)


def ratio(mine: NDArray[np.float64], peer: NDArray[np.float64]) -> tuple[float, float]:
    """How many times the peer's divergence ours is, and the standard error over the chunks.

    Both files see the same text, so it is the error of the difference, chunk by chunk.
    """
    difference = mine - peer
    error = difference.std(ddof=1) / math.sqrt(len(difference))
    return float(mine.mean() / peer.mean()), float(error / peer.mean())


def calibrated(model: Path, threads: int) -> Importance:
    with open_model(model, context=CHUNK, threads=threads) as opened:
        text = text_chunks(opened.tokenizer, calibration_text(), context=CHUNK, limit=CALIBRATED_ON)
        return collect(opened.engine, opened.matrices, text).importance()


def qualities(
    model: Path, recipes: Sequence[str], tokens: int, threads: int, *, calibrate: bool
) -> Iterator[dict[str, Any]]:
    text = Path(os.environ["EDGEINFER_TEST_DATA"], "wiki.valid.txt").read_text()
    tokenizer = LlamaCpp(model, context=CHUNK, batch=CHUNK, threads=threads)
    ids = tokenizer.tokenize(text[: 8 * tokens])[:tokens]
    tokenizer.close()
    assert len(ids) == tokens
    chunks = [ids[i : i + CHUNK] for i in range(0, tokens, CHUNK)]
    plain = requantize.read(model)
    with tempfile.TemporaryDirectory() as folder:
        source, mine, peer = (Path(folder, name) for name in ("f16.gguf", "mine.gguf", "peer.gguf"))
        for padded in (False, True):
            wanted = [r for r in recipes if (quant.get(RECIPES[r].base).block == 256) == padded]
            if not wanted:
                continue
            made = requantize.padded(plain, 256) if padded else plain
            requantize.write(source, made, GGMLQuantizationType.F16)
            references = [
                [log_softmax(chunk) for chunk in engine(source, chunks, threads)]
                for engine in (ours, theirs)
            ]
            importance = calibrated(source, threads) if calibrate else None
            for name in wanted:
                overrides = Overrides(pure=name == "mxfp4")
                report = edgeinfer.convert(
                    source,
                    quant=name,
                    output=mine,
                    threads=threads,
                    overrides=overrides,
                    importance=importance,
                )
                llama_quantize(source, peer, name, threads, importance)
                error, peer_weight_error = compare_weights(source, mine, peer, importance)
                kl, in_peer = (
                    [divergence(reference, engine(path, chunks, threads)) for path in (mine, peer)]
                    for engine, reference in zip((ours, theirs), references, strict=True)
                )
                (kl_ratio, kl_error), (peer_ratio, peer_error) = ratio(*kl), ratio(*in_peer)
                yield {
                    "recipe": name,
                    "model": f"{made['embedding_length']} wide",
                    "bpw": report.bits_per_weight,
                    "error": error,
                    "peer_error": peer_weight_error,
                    "error_ratio": error / peer_weight_error,
                    "kl": float(kl[0].mean()),
                    "peer_kl": float(kl[1].mean()),
                    "kl_ratio": kl_ratio,
                    "kl_ratio_error": kl_error,
                    "kl_in_llamacpp": float(in_peer[0].mean()),
                    "peer_kl_in_llamacpp": float(in_peer[1].mean()),
                    "ratio_in_llamacpp": peer_ratio,
                    "ratio_in_llamacpp_error": peer_error,
                }


def rate(values: int, encode: Callable[[], object]) -> float:
    """Million values a second of processor time, the best of three."""
    best = float("inf")
    for _ in range(3):
        start = time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID)
        encode()
        best = min(best, time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID) - start)
    return values / best / 1e6


def peer_encode(
    type_: quant.QuantType, x: NDArray[np.float32], importance: NDArray[np.float32] | None
) -> NDArray[np.uint8]:
    if importance is None and type_.name in NEED_IMPORTANCE:  # or it ends the process
        importance = np.ones(x.shape[1], dtype=np.float32)
    return quantize(x, type_.ggml_id, type_.nbytes((x.shape[1],)), importance)


def times(model: Path) -> list[Any]:
    tensors = requantize.read(model).tensors.values()
    largest = max(tensors, key=lambda tensor: tensor.size)
    columns = 1536  # whole blocks of every type
    rows_of = min(largest.size, TIMED_VALUES) // columns
    x = np.ascontiguousarray(largest.reshape(-1)[: rows_of * columns].reshape(-1, columns))
    importance = np.random.default_rng(0).lognormal(0, 1, columns).astype(np.float32)
    rows = []
    for type_ in quant.all_types():
        if type_.is_float:
            continue
        row: dict[str, Any] = {"type": type_.name}
        for prefix, weights in (("", None), ("weighted_", importance)):
            mine = rate(x.size, partial(quant.encode, type_, x, importance=weights))
            peer = rate(x.size, partial(peer_encode, type_, x, weights))
            row |= {
                f"{prefix}mvalues": mine,
                f"{prefix}peer_mvalues": peer,
                f"{prefix}speedup": mine / peer,
            }
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="SmolLM2 as a GGUF")
    parser.add_argument("--name", default="", help="of the results, where it is another model")
    parser.add_argument("--recipes", nargs="*", help="by default all that can be written")
    parser.add_argument("--tokens", type=int, default=16 * CHUNK)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--times", action="store_true", help="only the encoders' time")
    parser.add_argument("--calibrate", action="store_true", help="with an importance matrix")
    options = parser.parse_args()

    left_out = SKIPPED if options.calibrate else SKIPPED | NEEDS_IMPORTANCE
    known = [name for name in RECIPES if name not in left_out]
    about = record.context(["llama-cpp-python", "gguf", "torch"])
    timed = times(options.model)
    print(record.table(timed, TIMES), flush=True)
    if options.times:
        record.save("encoders_times", about, timed)
        return
    results = "_".join(filter(None, ["encoders", options.name, "calibrated" * options.calibrate]))
    recipes = [get_recipe(name).name for name in options.recipes or known]
    about |= {"tokens": options.tokens, "chunk": CHUNK, "times": timed}
    rows = []
    for row in qualities(
        options.model, recipes, options.tokens, options.threads, calibrate=options.calibrate
    ):
        rows.append(row)
        print(record.table([row], QUALITY).splitlines()[-1], flush=True)
        record.save(results, about, rows)
    print(record.table(rows, QUALITY))


if __name__ == "__main__":
    main()
