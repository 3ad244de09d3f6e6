"""How much smaller is the error of MLC weights when codes and scales are searched for?

Drawn weights, and the matrices of a model if one is given, are stored in each of MLC LLM's formats
as its own converter does (mode mlc) and by searching (mode mse). Told is the root mean square of
the error over that of the weights, what searching takes off the squared error, and processor time
of a thread per million weights.

    python benchmarks/mlc_error.py [--model SmolLM2.gguf]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import record
from numpy.typing import NDArray

from edgeinfer.formats.mlc.quants import QUANTS, Quant
from edgeinfer_converters.checkpoint import open_source
from edgeinfer_converters.mlc.packing import encode_as_mlc, rounded, unpack
from edgeinfer_converters.mlc.search import encode_searched

SHAPE = (512, 2560)
COLUMNS = {
    "format": "s",
    "weights": "s",
    "mlc": ".4f",
    "mse": ".4f",
    "squared_error_saved": ".1%",
    "mlc_ms_per_million": ".1f",
    "mse_ms_per_million": ".1f",
}


def drawn() -> Iterator[tuple[str, list[NDArray[np.float32]]]]:
    rng = np.random.default_rng(0)
    for name, values in (
        ("normal", rng.standard_normal(SHAPE)),
        ("laplace", rng.laplace(size=SHAPE)),
        ("student t5", rng.standard_t(5, SHAPE)),
    ):
        yield name, [(values * 0.02).astype(np.float32)]


def matrices(path: Path) -> list[NDArray[np.float32]]:
    source = open_source(path)
    try:
        return [t.read(0, t.shape[0]) for t in source.tensors if len(t.shape) == 2]
    finally:
        source.close()


def measured(
    weights: list[NDArray[np.float32]], quant: Quant, mode: str
) -> tuple[float, float, float]:
    """Returns squared error, squared weights and seconds."""
    error = square = seconds = 0.0
    for matrix in weights:
        start = time.thread_time()
        if mode == "mlc":
            words, scales = encode_as_mlc(matrix, quant)
        else:
            words, scales = encode_searched(matrix, quant, threads=1)
        seconds += time.thread_time() - start
        # float32 scales are stored in 16 bits in both modes.
        loaded = rounded(scales, "bfloat16" if quant.dtype == "float32" else quant.dtype)
        codes = unpack(words, quant)[:, : matrix.shape[1]].astype(np.float32) - quant.offset
        values = codes * np.repeat(loaded, quant.group, axis=1)[:, : matrix.shape[1]]
        error += float(((values - matrix).astype(np.float64) ** 2).sum())
        square += float((matrix.astype(np.float64) ** 2).sum())
    return error, square, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    contents = list(drawn())
    if arguments.model:
        contents.append((arguments.model.stem, matrices(arguments.model)))
    rows = []
    for quant in QUANTS.values():
        if not quant.bits or quant.transposed or not quant.ends:
            continue  # not quantised, or the same codes in another layout
        for name, weights in contents:
            millions = sum(matrix.size for matrix in weights) / 1e6
            theirs, square, their_seconds = measured(weights, quant, "mlc")
            ours, _, our_seconds = measured(weights, quant, "mse")
            rows.append(
                {
                    "format": quant.name,
                    "weights": name,
                    "mlc": (theirs / square) ** 0.5,
                    "mse": (ours / square) ** 0.5,
                    "squared_error_saved": 1 - ours / theirs,
                    "mlc_ms_per_million": 1000 * their_seconds / millions,
                    "mse_ms_per_million": 1000 * our_seconds / millions,
                }
            )
    record.save("mlc_error", record.context(["numpy"]), rows)
    print(record.table(rows, COLUMNS))


if __name__ == "__main__":
    main()
