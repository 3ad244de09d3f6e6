"""What does each type of the KV cache cost in accuracy?

The mean Kullback-Leibler divergence (nats a token) of an engine's next-token distribution from
the float32 forward of the same weights (transformers), for our engine and for llama.cpp on the same
tokens. A row less the one of f32 is what the type costs; the latter is what rounded activations do,
and one rounding moves all that follow, so that two caches of one engine say less.

    python benchmarks/kv_types.py --model smollm2.gguf [--tokens 2048]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import record
import requantize
from float_reference import FloatReference
from llamacpp_peer import LlamaCpp
from quality import CHUNK, divergence, ours, references, theirs

PAIRS = [
    ("f32", "f32"),
    ("f16", "f16"),
    ("q8_0", "q8_0"),
    ("q8_0", "q4_0"),
    ("q4_0", "q8_0"),
    ("q4_0", "q4_0"),
]
COLUMNS = {
    "keys": "s",
    "values": "s",
    "kl_edgeinfer": ".2e",
    "kl_llamacpp": ".2e",
    "top1_edgeinfer": ".2%",
    "top1_llamacpp": ".2%",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="a GGUF")
    parser.add_argument("--tokens", type=int, default=4 * CHUNK)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()

    text = Path(__file__).parents[1].joinpath("docs", "architecture.md").read_text()
    peer = LlamaCpp(options.model, context=CHUNK, batch=CHUNK, threads=options.threads)
    tokens = (peer.tokenize(text) * 8)[: options.tokens]
    peer.close()
    chunks = [tokens[i : i + CHUNK] for i in range(0, len(tokens), CHUNK)]
    expected = references(FloatReference(requantize.read(options.model)), chunks)
    rows = []
    for keys, values in PAIRS:
        kl, top1 = divergence(
            expected, chunks, ours(options.model, chunks, options.threads, (keys, values))
        )
        peer_kl, peer_top1 = divergence(
            expected, chunks, theirs(options.model, chunks, options.threads, (keys, values))
        )
        rows.append(
            {
                "keys": keys,
                "values": values,
                "kl_edgeinfer": kl,
                "kl_llamacpp": peer_kl,
                "top1_edgeinfer": top1,
                "top1_llamacpp": peer_top1,
            }
        )
        print(record.table(rows[-1:], COLUMNS).splitlines()[-1], flush=True)
    print(record.table(rows, COLUMNS))
    about = record.context(["llama-cpp-python"])
    print(record.save("kv_types", {**about, "tokens": len(tokens), "chunk": CHUNK}, rows))


if __name__ == "__main__":
    main()
