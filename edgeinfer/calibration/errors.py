"""Output error: how far a matrix's products are off when its weights are rounded.

E ||(W - Q) x||^2 / E ||W x||^2 over inputs x that the model really saw; weights alone would not
say, as the columns' inputs differ by orders of magnitude and are correlated. Both means are over a
sample of tokens and, of large matrices, of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgeinfer.calibration.collect import recorded
from edgeinfer.calibration.inputs import MatrixSource
from edgeinfer.calibration.opened import Opened
from edgeinfer.calibration.weights import rounded
from edgeinfer.evaluation.chunks import Chunks
from edgeinfer.quant import QuantType

TOKENS, ROWS = 256, 512  # sampled

Samples = Mapping[tuple[str, int], NDArray[np.float32]]  # (field, layer) -> (tokens, columns)


def sample_inputs(opened: Opened, chunks: Chunks, *, tokens: int = TOKENS) -> Samples:
    """Keeps the inputs of some tokens, spread over the chunks."""
    rng = np.random.default_rng(1)
    read = len(chunks) * chunks.context
    wanted = np.sort(rng.choice(read, min(tokens, read), replace=False))
    kept: dict[tuple[str, int], list[NDArray[np.float32]]] = {}
    done = 0
    for inputs in recorded(opened.engine, chunks):
        count = len(inputs["output"])
        here = wanted[(wanted >= done) & (wanted < done + count)] - done
        done += count
        for field, rows in inputs.items():
            if field == "output":
                kept.setdefault((field, -1), []).append(rows[here])
            elif field != "experts":
                for layer, part in enumerate(rows):
                    kept.setdefault((field, layer), []).append(part[here])
                    if field == "down" and "experts" in inputs:  # the shared one is a token's last
                        used = inputs["experts"].shape[2]
                        own = part[used - 1 :: used][here]
                        kept.setdefault(("down/shared", layer), []).append(own)
    return {key: np.concatenate(parts) for key, parts in kept.items()}


def output_errors(
    matrix: MatrixSource,
    weights: NDArray[np.float32],
    types: Sequence[QuantType],
    inputs: NDArray[np.float32] | None,
    importance: NDArray[np.float32] | None,
    *,
    threads: int = 1,
) -> dict[str, float]:
    """The relative output error of each type.

    Args:
        matrix: which it is.
        weights: float32 (rows, columns).
        types: whose blocks divide the columns.
        inputs: float32 (tokens, columns); None for an embedding, where the error is the weights'.
        importance: float32 (matrices, columns) for the encoder.
        threads: of the encoder.
    """
    rows = np.sort(np.random.default_rng(2).permutation(len(weights))[:ROWS])
    some, of = weights[rows], matrix.of_rows()[rows]
    size = _energy(some, inputs)
    return {
        type_.name: _energy(some - rounded(some, type_, importance, of, threads=threads), inputs)
        / max(size, 1e-30)
        for type_ in types
    }


def _energy(weights: NDArray[np.float32], inputs: NDArray[np.float32] | None) -> float:
    products = weights if inputs is None else weights @ inputs.T
    return float(np.square(products, dtype=np.float64).mean())
