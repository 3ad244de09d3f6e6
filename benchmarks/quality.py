"""How close do quantised matrices keep an engine to a float forward of the same weights?

For every quant type, SmolLM2 is written with all its matrices in that type. Its weights, decoded
by the gguf package, run in float32 in transformers; the mean Kullback-Leibler divergence of an
engine's next-token distribution from that forward is what the engine itself loses: rounded
activations, a half-precision cache, the order of sums. Not what the type loses, which is the
same for both engines.

    python benchmarks/quality.py [--types q4_0 q6_k] [--tokens 2048]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import record
import requantize
from float_reference import FloatReference
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from llamacpp_peer import LlamaCpp
from numpy.typing import NDArray

import edgeinfer
from edgeinfer.evaluation.measures import measures
from edgeinfer.evaluation.run import joined
from edgeinfer.evaluation.scores import ReferenceRows, distance
from edgeinfer.quant import all_types

CHUNK = 512  # tokens of context; each chunk starts anew
Chunks = Sequence[Sequence[int]]
KvTypes = tuple[str, str]
F16: KvTypes = ("f16", "f16")
COLUMNS = {
    "type": "s",
    "model": "s",
    "kl_edgeinfer": ".2e",
    "kl_llamacpp": ".2e",
    "ratio": ".2f",
    "top1_edgeinfer": ".2%",
    "top1_llamacpp": ".2%",
}


def targets(chunk: Sequence[int]) -> NDArray[np.int32]:
    """The tokens that came; after the last one none did, which the divergence does not look at."""
    return np.array([*chunk[1:], 0], np.int32)


def references(forward: FloatReference, chunks: Chunks) -> list[ReferenceRows]:
    return [ReferenceRows.of(forward.logits(chunk), targets(chunk)) for chunk in chunks]


def divergence(
    expected: Sequence[ReferenceRows], chunks: Chunks, logits: Iterator[NDArray[np.float32]]
) -> tuple[float, float]:
    """Mean KL (nats) from the reference, and the share of equal best tokens."""
    scores = [
        distance(found, targets(chunk), reference)
        for reference, chunk, found in zip(expected, chunks, logits, strict=True)
    ]
    found = measures(joined(scores))
    return found.kl_mean, found.top1_agreement


def ours(path: Path, chunks: Chunks, threads: int, kv_types: KvTypes = F16) -> Iterator[Any]:
    k, v = kv_types
    with edgeinfer.load(
        path, context=CHUNK, threads=threads, kv_type_k=k, kv_type_v=v, backend="native"
    ) as model:
        for chunk in chunks:
            yield model.logits(chunk)


def theirs(path: Path, chunks: Chunks, threads: int, kv_types: KvTypes = F16) -> Iterator[Any]:
    engine = LlamaCpp(path, context=CHUNK, batch=CHUNK, threads=threads, kv_types=kv_types)
    for chunk in chunks:
        engine.clear()
        yield engine.step(chunk, wants_logits=len(chunk))
    engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="SmolLM2 as a GGUF")
    parser.add_argument("--types", nargs="*", default=[t.name for t in all_types()])
    parser.add_argument("--tokens", type=int, default=4 * CHUNK)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()

    text = Path(os.environ["EDGEINFER_TEST_DATA"], "wiki.valid.txt").read_text()
    peer = LlamaCpp(options.model, context=CHUNK, batch=CHUNK, threads=options.threads)
    tokens = peer.tokenize(text[: 8 * options.tokens])[: options.tokens]
    peer.close()
    assert len(tokens) == options.tokens
    chunks = [tokens[i : i + CHUNK] for i in range(0, len(tokens), CHUNK)]
    plain = requantize.read(options.model)
    padded = requantize.padded(plain, 256)

    about = record.context(["llama-cpp-python", "transformers", "torch", "gguf"])
    rows = []
    for name in options.types:
        ggml_type = GGMLQuantizationType[name.upper()]
        needs_padding = plain["embedding_length"] % GGML_QUANT_SIZES[ggml_type][0] != 0
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"{name}.gguf")
            requantize.write(path, padded if needs_padding else plain, ggml_type)
            expected = references(FloatReference(requantize.read(path)), chunks)
            kl, top1 = divergence(expected, chunks, ours(path, chunks, options.threads))
            peer_kl, peer_top1 = divergence(expected, chunks, theirs(path, chunks, options.threads))
        rows.append(
            {
                "type": name,
                "model": "768 wide" if needs_padding else "576 wide",
                "kl_edgeinfer": kl,
                "kl_llamacpp": peer_kl,
                "ratio": kl / peer_kl,
                "top1_edgeinfer": top1,
                "top1_llamacpp": peer_top1,
            }
        )
        print(record.table(rows[-1:], COLUMNS).splitlines()[-1], flush=True)
    print(record.table(rows, COLUMNS))
    print(record.save("quality", {**about, "tokens": len(tokens), "chunk": CHUNK}, rows))


if __name__ == "__main__":
    main()
