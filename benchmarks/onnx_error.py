"""How far exported ONNX folders are from their source, with and without an importance matrix.

For each recipe the mean divergence (nats) of next-token distributions from a folder of f32 is
taken through the backend ``onnx``, with that of each recipe weighted by importance beside it.

    python benchmarks/onnx_error.py SOURCE TEXT [--imatrix FILE] [--quants int4 int2]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import record
from numpy.typing import NDArray

import edgeinfer
from edgeinfer.evaluation.scores import ReferenceRows, distance
from edgeinfer.formats.imatrix import read_imatrix
from edgeinfer_converters.onnx.convert import convert

CHUNK = 512  # tokens; each chunk starts anew
COLUMNS = {"quant": "s", "cache": "s", "kl": ".5f", "kl_weighted": ".5f", "bits": ".2f"}


def logits(folder: Path, chunks: list[list[int]]) -> list[NDArray[np.float32]]:
    with edgeinfer.load(folder, backend="onnx", context=CHUNK) as model:
        return [model.logits(chunk) for chunk in chunks]


def targets(chunk: list[int]) -> NDArray[np.int32]:
    """The tokens that came; after the last one none did, which the divergence does not look at."""
    return np.array([*chunk[1:], 0], np.int32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="a checkpoint or a GGUF")
    parser.add_argument("text", type=Path, help="what it was not calibrated on")
    parser.add_argument("--imatrix", type=Path)
    parser.add_argument("--quants", nargs="*", default=["int8", "int4", "int2"])
    parser.add_argument("--caches", nargs="*", default=["f32"])
    parser.add_argument("--chunks", type=int, default=8)
    options = parser.parse_args()
    importance = read_imatrix(options.imatrix).importance() if options.imatrix else None

    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "out")
        convert(options.source, folder, quant="f32")
        with edgeinfer.load(folder, backend="onnx", context=CHUNK) as model:
            tokens = model.tokenizer.encode(options.text.read_text(encoding="utf-8"))
        chunks = [tokens[i * CHUNK : (i + 1) * CHUNK] for i in range(options.chunks)]
        expected = [
            ReferenceRows.of(found, targets(chunk))
            for chunk, found in zip(chunks, logits(folder, chunks), strict=True)
        ]
        for quant in options.quants:
            for cache in options.caches:
                row: dict[str, object] = {"quant": quant, "cache": cache, "kl_weighted": 0.0}
                for name, weights in (("kl", None), ("kl_weighted", importance)):
                    if name == "kl" or weights is not None:
                        report = convert(
                            options.source, folder, quant=quant, cache=cache, importance=weights
                        )
                        row[name] = _divergence(logits(folder, chunks), chunks, expected)
                        row["bits"] = report.bits_per_weight
                rows.append(row)
                print(record.table(rows[-1:], COLUMNS).splitlines()[-1], flush=True)
    about = record.context(["onnxruntime"])
    print(record.save(f"onnx_error_{options.source.stem}", {**about, "chunks": len(chunks)}, rows))


def _divergence(
    found: list[NDArray[np.float32]], chunks: list[list[int]], expected: list[ReferenceRows]
) -> float:
    scores = [
        distance(rows, targets(chunk), reference).kl.mean()
        for rows, chunk, reference in zip(found, chunks, expected, strict=True)
    ]
    return float(np.mean(scores))


if __name__ == "__main__":
    main()
