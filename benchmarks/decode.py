"""Tokens per second beside llama.cpp: one file, the same threads, rounds taken in turns.

Both engines run a bare greedy loop (step, argmax over the logits) on the same prompt; the rounds
alternate, so that a busy machine slows both. The ratio is of medians, its spread the smallest
and the largest ratio of any round.

    python benchmarks/decode.py [--model FILE.gguf] [--threads 2] [--rounds 7]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import record
from llamacpp_peer import LlamaCpp
from numpy.typing import NDArray

import edgeinfer
from edgeinfer.backends.base import ModelFiles, Slice
from edgeinfer.backends.native import NativeBackend

COLUMNS = {
    "phase": "s",
    "threads": "d",
    "edgeinfer": ".1f",
    "llamacpp": ".1f",
    "ratio": ".2f",
    "ratio_min": ".2f",
    "ratio_max": ".2f",
}
Step = Callable[[Sequence[int]], NDArray[np.float32]]


def seconds(step: Step, prompt: Sequence[int], new_tokens: int) -> dict[str, float]:
    """Runs one prompt and its greedy continuation; returns tokens per second of each phase."""
    start = time.perf_counter()
    logits = step(prompt)
    prefilled = time.perf_counter()
    for _ in range(new_tokens):
        logits = step([int(logits[-1].argmax())])
    end = time.perf_counter()
    return {
        "prefill": len(prompt) / (prefilled - start),
        "decode": new_tokens / (end - prefilled),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2", help="a reference or a GGUF file")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--new-tokens", type=int, default=128)
    options = parser.parse_args()

    context = options.prompt_tokens + options.new_tokens
    text = "The quick brown fox jumps over the lazy dog and tells the story of its life. "
    with edgeinfer.load(options.model, context=context, threads=options.threads) as model:
        path, plan = Path(model.path), model.plan
        prompt = (model.tokenizer.encode(text) * options.prompt_tokens)[: options.prompt_tokens]
    engine = NativeBackend().load(ModelFiles(path=path, format="gguf"), plan)
    peer = LlamaCpp(path, context=context, batch=512, threads=options.threads)

    def ours() -> dict[str, float]:
        sequence = engine.open()
        try:
            return seconds(
                lambda tokens: engine.step([Slice(sequence, tokens)]), prompt, options.new_tokens
            )
        finally:
            engine.close(sequence)

    def theirs() -> dict[str, float]:
        peer.clear()
        return seconds(peer.step, prompt, options.new_tokens)

    about = {
        **record.context(["llama-cpp-python"]),
        "model": path.name,
        "prompt_tokens": options.prompt_tokens,
        "new_tokens": options.new_tokens,
        "rounds": options.rounds,
    }
    ours(), theirs()  # warm both up
    rounds = [(ours(), theirs()) for _ in range(options.rounds)]

    rows: list[dict[str, Any]] = []
    for phase in ("prefill", "decode"):
        mine, other = ([r[side][phase] for r in rounds] for side in (0, 1))
        ratios = [a / b for a, b in zip(mine, other, strict=True)]
        rows.append(
            {
                "phase": phase,
                "threads": options.threads,
                "edgeinfer": statistics.median(mine),
                "llamacpp": statistics.median(other),
                "ratio": statistics.median(mine) / statistics.median(other),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
            }
        )
    print(record.table(rows, COLUMNS))
    print(record.save(f"decode_{options.threads}t", about, rows))


if __name__ == "__main__":
    main()
