"""What rounding activations to 8 bits costs in ONNX Runtime and in our engine, weights being equal.

A GGUF of q4_0 is exported so that its values are kept, once as whole numbers and once as floats.
The floats' products are exact: from them the mean divergence (nats) and the greedy answers of
each way to run the q4_0 are told. ONNX Runtime rounds with a scale for each 32 columns, llama.cpp
too, the native engine for each 16.

    python benchmarks/onnx_rounding.py SOURCE TEXT
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import takewhile
from pathlib import Path

import numpy as np
import record
from onnx_error import CHUNK, targets

import edgeinfer
from edgeinfer.evaluation.scores import ReferenceRows, distance
from edgeinfer.runtime.model import Model
from edgeinfer_converters.gguf import convert as to_gguf
from edgeinfer_converters.onnx.convert import convert as to_onnx

NEW = 32  # tokens of an answer
PROMPT = 120  # characters
COLUMNS = {"engine": "s", "kl": ".5f", "top1": ".3f", "equal": "d", "same_tokens": ".1f"}


def answers(model: Model, prompts: list[str]) -> list[tuple[int, ...]]:
    return [
        tuple(model.generate(prompt, max_tokens=NEW, temperature=0).tokens) for prompt in prompts
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="a checkpoint or a GGUF")
    parser.add_argument("text", type=Path)
    parser.add_argument("--name", help="of the results, by default the source's")
    parser.add_argument("--chunks", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=16)
    options = parser.parse_args()
    text = options.text.read_text(encoding="utf-8")
    step = len(text) // options.prompts
    prompts = [text[i * step :][:PROMPT] for i in range(options.prompts)]

    rows = []
    with tempfile.TemporaryDirectory() as place:
        gguf, codes, floats = (Path(place, name) for name in ("q4_0.gguf", "int4", "f32"))
        to_gguf(options.source, gguf, quant="q4_0")
        assert to_onnx(gguf, codes, quant="int4").requantised == {}
        to_onnx(gguf, floats, quant="f32")
        with edgeinfer.load(floats, backend="onnx", context=CHUNK) as model:
            tokens = model.tokenizer.encode(text)
            chunks = [tokens[i * CHUNK : (i + 1) * CHUNK] for i in range(options.chunks)]
            expected = [ReferenceRows.of(model.logits(chunk), targets(chunk)) for chunk in chunks]
            wanted = answers(model, prompts)
        for path, engine in ((codes, "onnx"), (gguf, "native"), (gguf, "llamacpp")):
            cache = {} if engine == "onnx" else {"kv_type_k": "f32", "kv_type_v": "f32"}
            with edgeinfer.load(path, backend=engine, context=CHUNK, **cache) as model:
                found = [
                    distance(model.logits(chunk), targets(chunk), reference)
                    for chunk, reference in zip(chunks, expected, strict=True)
                ]
                said = answers(model, prompts)
            same = [
                sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))
                for a, b in zip(said, wanted, strict=True)
            ]
            rows.append({
                "engine": engine,
                "kl": float(np.mean([scores.kl.mean() for scores in found])),
                "top1": float(np.mean([scores.same_top.mean() for scores in found])),
                "equal": sum(a == b for a, b in zip(said, wanted, strict=True)),
                "same_tokens": float(np.mean(same)),
            })  # fmt: skip
            print(record.table(rows[-1:], COLUMNS).splitlines()[-1], flush=True)
    about = record.context(["onnxruntime", "llama-cpp-python"])
    counts = {"chunks": len(chunks), "prompts": len(prompts), "new_tokens": NEW}
    name = f"onnx_rounding_{options.name or options.source.stem}"
    print(record.save(name, {**about, **counts}, rows))


if __name__ == "__main__":
    main()
