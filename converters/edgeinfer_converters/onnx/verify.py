"""Is the folder that was written the model that was read? By the rules of ``verify``.

Matrices are read back from the data file as the kernels would multiply them. The logits are those
of plain onnxruntime, and of the source in its own precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from io import BufferedRandom
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeinfer.errors import EdgeInferError
from edgeinfer.evaluation.sample import VERIFIED_TEXTS
from edgeinfer.formats.onnx_library import onnxruntime
from edgeinfer.quant import get
from edgeinfer.tokenizer import load_tokenizer
from edgeinfer_converters.checkpoint import GgufSource, HuggingFaceSource
from edgeinfer_converters.onnx.data_file import blocks_of
from edgeinfer_converters.onnx.forms import Form, encoded
from edgeinfer_converters.onnx.weights import Matrix, Use, Weights
from edgeinfer_converters.tensors import GivenTensor
from edgeinfer_converters.verify import (
    BLOCK_VALUES,
    KL_MARGIN,
    KL_OF_ACTIVATIONS,
    LEAST_ERROR,
    MOST_ERROR,
    TOKENS,
    WEIGHT_MARGIN,
    TensorError,
    Verification,
    compared,
    normal_error,
    raise_problems,
    text_problems,
    weight_problems,
    worst_first,
)

_KINDS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int8)": np.int8}
KL_OF_CACHE = 0.2  # nats; what keys and values of 8 bits may do


def verify(
    graph: Path,
    file: BufferedRandom,
    *,
    name: Path,
    source: HuggingFaceSource | GgufSource,
    weights: Weights,
    cache: str,
    reference: Callable[[Sequence[int]], NDArray[np.float32]],
) -> Verification:
    """Compares a written folder with its source.

    Args:
        graph: where it can be read, its data and tokenizer beside it.
        file: the data.
        name: what the folder is going to be called.
        source: what it was made of.
        weights: what it has to hold.
        cache: the type of its keys and values.
        reference: runs tokens through the source in its own precision.

    Raises:
        CheckFailedError: it is something else; says what.
    """
    worst = worst_first(
        _error(file, weights, matrix, uses) for matrix, uses in weights.matrix_uses()
    )
    written, given = load_tokenizer(graph.parent), load_tokenizer(_tokenizer(source))
    raise_problems(name, [*weight_problems(worst), *text_problems(written, given)])
    tokens = written.encode("\n".join(VERIFIED_TEXTS))[:TOKENS]
    limit = _kl_limit(weights) + (KL_OF_CACHE if cache == "int8" else 0.0)
    return compared(name, tokens, reference(tokens), _logits(graph, tokens), worst, limit)


def _tokenizer(source: HuggingFaceSource | GgufSource) -> Any:
    return source.gguf if isinstance(source, GgufSource) else source.path


def _logits(graph: Path, tokens: Sequence[int]) -> NDArray[np.float32]:
    library = onnxruntime()
    options = library.SessionOptions()
    options.log_severity_level = 3  # it warns of the rows of logits, whose number varies
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = library.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        ids = np.array([tokens], np.int64)
        caches = {
            value.name: np.zeros((1, value.shape[1], 0, value.shape[3]), _KINDS[value.type])
            for value in session.get_inputs()
            if value.name.startswith("past_key_values.")
        }
        fed = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "num_logits": np.array([len(tokens)], np.int64),
        }
        logits: NDArray[np.float32] = session.run(["logits"], fed | caches)[0][0]
    except Exception as error:  # its errors have no class in common
        raise EdgeInferError(f"onnxruntime does not run what was written: {error}") from error
    return logits.astype(np.float32)


def _error(
    file: BufferedRandom, weights: Weights, matrix: Matrix, uses: Sequence[Use]
) -> TensorError:
    difference = size = 0.0
    for use in uses:
        part = use.part
        for low, high in blocks_of(part.row_count, matrix.columns, BLOCK_VALUES):
            expected = use.tensor.read(part.row_start + low, part.row_start + high)
            found = weights.read(file, matrix, use.at + low, use.at + high)
            # By float64 sums of squares: a vocabulary's rows would drown in float32.
            difference += float(np.square(found - expected, dtype=np.float64).sum())
            size += float(np.square(expected, dtype=np.float64).sum())
    error = (difference / size) ** 0.5 if size else float(difference > 0)
    floats = weights.recipe.floats
    limit = min(WEIGHT_MARGIN * form_error(matrix.form, floats) + LEAST_ERROR, MOST_ERROR)
    kind = matrix.form.name if matrix.form.bits else floats
    return TensorError(name=matrix.values.name, type=kind, error=error, limit=limit)


@cache
def form_error(form: Form, floats: str) -> float:
    """A form's error on normally distributed weights, over their norm."""
    if not form.bits:
        return normal_error(get(floats))
    values = np.random.default_rng(0).standard_normal((64, 1024), np.float32)
    made = encoded(GivenTensor("normal", values), Form(form.bits), 0, 64, threads=1)
    levels = made.codes.astype(np.float32) - 2 ** (form.bits - 1)
    difference = levels * np.repeat(made.scales, Form(form.bits).block, axis=1) - values
    return float(np.linalg.norm(difference) / np.linalg.norm(values))


def _kl_limit(weights: Weights) -> float:
    squares = count = 0.0
    all_float = True
    for matrix, _ in weights.matrix_uses():
        all_float &= not matrix.form.bits
        count += matrix.rows * matrix.columns
        error = form_error(matrix.form, weights.recipe.floats)
        squares += matrix.rows * matrix.columns * error**2
    return KL_MARGIN * squares / max(count, 1) + KL_OF_ACTIVATIONS[all_float]
