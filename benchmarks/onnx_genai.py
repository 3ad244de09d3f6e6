"""The backend ``onnx`` beside onnxruntime-genai on the same exported folder, in turns.

Prints the tokens a second of reading a prompt and of generating, the median of the rounds, and the
median of ours over theirs. Threads wait actively for a while after an engine's last token, so there
is a pause before the other's turn, and the first of a round is the second of the next.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import onnxruntime_genai as og

import edgeinfer
from edgeinfer.backends.base import Slice
from edgeinfer.runtime.model import Model

PAUSE = 0.1  # seconds


def ours(model: Model, prompt: list[int], new: int) -> Iterator[float]:
    """Yields the seconds of the prompt and of the new tokens, as one greedy loop takes them."""
    engine = model.engine
    number, tokens = engine.open(), prompt
    for count in (1, new):
        start = time.perf_counter()
        for _ in range(count):
            tokens = [int(engine.step([Slice(number, tokens)])[0].argmax())]
        yield time.perf_counter() - start
    engine.close(number)


def genai(model: og.Model, prompt: list[int], new: int) -> Iterator[float]:
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=len(prompt) + new + 2, do_sample=False)
    generator = og.Generator(model, params)
    start = time.perf_counter()
    generator.append_tokens(prompt)
    generator.generate_next_token()
    yield time.perf_counter() - start
    start = time.perf_counter()
    for _ in range(new):
        generator.generate_next_token()
    yield time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("-p", type=int, default=128, help="tokens of the prompt")
    parser.add_argument("-n", type=int, default=24, help="new tokens")
    parser.add_argument("-r", type=int, default=8, help="rounds")
    parser.add_argument("-t", type=int, default=2, help="threads")
    wanted = parser.parse_args()
    context = wanted.p + wanted.n + 2
    config = og.Config(wanted.folder)
    config.overlay(
        json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": wanted.t}}}})
    )
    theirs = og.Model(config)
    own = edgeinfer.load(wanted.folder, backend="onnx", context=context, threads=wanted.t)
    prompt = np.random.default_rng(0).integers(10, 2000, wanted.p).tolist()
    found: dict[str, list[list[float]]] = {"onnx": [], "genai": []}
    turns: list[tuple[str, Callable[[], Iterator[float]]]] = [
        ("onnx", lambda: ours(own, prompt, wanted.n)),
        ("genai", lambda: genai(theirs, prompt, wanted.n)),
    ]
    for _, run in turns:
        list(run())
    for _ in range(wanted.r):
        for name, run in turns:
            time.sleep(PAUSE)
            found[name].append(list(run()))
        turns.reverse()
    for name, rounds in found.items():
        reading, writing = (statistics.median(times) for times in zip(*rounds, strict=True))
        print(
            f"{name:6} prompt {wanted.p / reading:8.1f} tok/s, new {wanted.n / writing:7.2f} tok/s"
        )
    ratios = (
        statistics.median(their / our for our, their in zip(*times, strict=True))
        for times in zip(*(zip(*rounds, strict=True) for rounds in found.values()), strict=True)
    )
    print("onnx / genai: prompt {:.3f}, new {:.3f}".format(*ratios))


if __name__ == "__main__":
    main()
