"""Collects an importance matrix: the model reads a text, and its matrices' inputs are summed up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeinfer.backends.base import Slice
from edgeinfer.calibration.inputs import MatrixSource
from edgeinfer.errors import CorruptFileError
from edgeinfer.evaluation.chunks import Chunks
from edgeinfer.formats.imatrix import ColumnSums, ImportanceMatrix

if TYPE_CHECKING:
    from edgeinfer.backends.native import NativeEngine

RECORD_VALUES = 1 << 25  # recorded floats held at a time

Recorded = Mapping[str, NDArray[np.float32]]


def recorded(engine: NativeEngine, chunks: Chunks) -> Iterator[Recorded]:
    """Reads each chunk in an empty context and yields the inputs, some tokens at a time."""
    config = engine.config
    queries = config.heads * config.head_dim
    inputs = config.width + config.per_layer_width if config.per_layer_width else 0
    beside = config.width + config.dense_ff_width if config.dense_ff_width else 0
    # A token's.
    values = config.layers * (2 * config.width + queries + config.ff_width + inputs + beside)
    step = max(1, RECORD_VALUES // values)
    for chunk in chunks.tokens:
        sequence = engine.open()
        try:
            for first in range(0, len(chunk), step):
                yield engine.record([Slice(sequence, chunk[first : first + step].tolist(), 0)])
        finally:
            engine.close(sequence)


def collect(
    engine: NativeEngine,
    matrices: Sequence[MatrixSource],
    chunks: Chunks,
    *,
    dataset: str = "",
    output: bool = False,
    progress: Callable[[int], None] | None = None,
) -> ImportanceMatrix:
    """Collects the importance matrix of a model.

    Args:
        engine: the loaded model.
        matrices: of its file.
        chunks: of the text; each is read in a context of its own.
        dataset: what the text is called.
        output: the output matrix as well, which llama-imatrix leaves out unless asked.
        progress: called with the tokens done.

    Raises:
        CorruptFileError: the model's numbers overflow.
    """
    sums: dict[str, NDArray[np.float64]] = {}
    done = 0
    for inputs in recorded(engine, chunks):
        for name, part in _squares(inputs, engine.config.experts):
            sums[name] = sums[name] + part if name in sums else part
        done += len(inputs["output"])
        if progress is not None:
            progress(done)
    tensors = {}
    for matrix in matrices:
        if not matrix.field or (matrix.field == "output" and not output):
            continue
        kind = matrix.field + ("/experts" if matrix.experts > 1 else "")
        rows = sums[kind] if matrix.layer < 0 else sums[kind][matrix.layer]
        rows = rows[..., : matrix.shape[1]]  # mixers are not of the same width in all layers
        counts = sums["counts"][matrix.layer] if matrix.experts > 1 else np.array([done])
        if not np.isfinite(rows).all():
            raise CorruptFileError(f"what {matrix.name!r} is multiplied with is not finite")
        tensors[matrix.name] = ColumnSums(
            np.atleast_2d(rows).astype(np.float32), counts.astype(np.float32)
        )
    return ImportanceMatrix(
        tensors=tensors,
        chunks=len(chunks),
        chunk_size=chunks.context,
        datasets=(dataset,) if dataset else (),
    )


def _squares(inputs: Recorded, experts: int) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yields sums of squares over the tokens of a step, (layers, columns), or of each expert."""
    more = [name for name in ("dense", "dense_down", "input_gate", "input_proj") if name in inputs]
    for name in ("qkv", "o", "ffn", "output", *more, *(() if experts else ("down",))):
        rows = inputs[name]
        # In float32 over a few hundred tokens, in float64 over the text.
        yield name, np.einsum("...tc,...tc->...c", rows, rows).astype(np.float64)
    if experts:
        chosen = inputs["experts"].reshape(len(inputs["experts"]), -1)  # (layers, tokens * used)
        used = inputs["experts"].shape[2]
        of = (chosen[:, None, :] == np.arange(experts)[:, None]).astype(np.float32)
        yield "counts", of.sum(axis=2, dtype=np.float64)
        yield "down/experts", (of @ np.square(inputs["down"])).astype(np.float64)
        shared = (chosen == experts).astype(np.float32)[:, None]  # which all tokens take
        yield "down/shared", (shared @ np.square(inputs["down"]))[:, 0].astype(np.float64)
        ffn = np.repeat(np.square(inputs["ffn"]), used, axis=1)
        yield "ffn/experts", (of @ ffn).astype(np.float64)
