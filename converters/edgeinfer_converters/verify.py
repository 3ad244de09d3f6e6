"""Is the file that was written the model that was read? Checked before it gets its name.

What is compared is the written bytes with the source: every tensor's name, shape, type and weights,
every number of the architecture, the tokens of texts, the chat template, and the logits of the file
with those of its source in the source's own precision, both through the same engine.

The limits follow from one figure a type, its error on normally distributed weights:

- A tensor's weights may be three times as far off as normal ones, and never as far as its own size:
  SmolLM2-135M's come to 1.3 times, outliers and importance of columns add to it. A permuted tensor
  is off by 1.4 times its size, a missing one by its size.
- A model's divergence grows with the square of its weights' error: 40 to 70 times that square for
  SmolLM2-135M from q4_k_m to q2_k, 100 to 500 times for tiny models of random weights, whose layers
  answer sharply; six hundred times is allowed. What rounding activations to eight bits does is
  0.004 nats there, and 0.13 where random experts change places; 0.2 is allowed. A finer mistake
  than that shows in the numbers and tensors, which are compared one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import cache
from math import isclose, prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeinfer.arch import ModelConfig, config_from_gguf
from edgeinfer.errors import CheckFailedError, EdgeInferError
from edgeinfer.evaluation.sample import VERIFIED_TEXTS
from edgeinfer.evaluation.scores import ReferenceRows, distance
from edgeinfer.formats.gguf import GGUFFile, open_gguf
from edgeinfer.quant import QuantType, by_ggml_id, decode, encode
from edgeinfer.tokenizer import Tokenizer, load_tokenizer
from edgeinfer_converters.tensors import Tensor, matrix_shape

# Runs tokens through a GGUF file: float32 (tokens, vocabulary).
Forward = Callable[[Path, Sequence[int]], NDArray[np.float32]]

TOKENS = 256  # at most, through the model
LISTED = 5  # worst tensors, and problems in a message
WEIGHT_MARGIN = 3.0
MOST_ERROR = 0.9
KL_MARGIN = 600.0
KL_OF_ACTIVATIONS = {False: 0.2, True: 1e-3}  # nats; whether all matrices are floats
LEAST_ERROR = 1e-6  # of f32, whose error is none
FLOAT32 = 1e-6  # relative, of numbers that passed through float32
BLOCK_VALUES = 1 << 20  # weights compared at a time


class Source(Protocol):
    """As much of a source as there is to compare with."""

    @property
    def path(self) -> Path:
        """A folder or a GGUF file."""

    @property
    def config(self) -> ModelConfig:
        """Its architecture's numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorError:
    """How far a tensor is from its source: the norm of the difference over the source's norm."""

    name: str
    type: str
    error: float
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was found of a file that passed.

    Attributes:
        tensors: how many were compared.
        worst: those whose errors come nearest to their limits.
        texts: how many were tokenised alike.
        tokens: how many went through both models.
        kl_mean: the mean divergence of the file's next-token distributions, nats.
        kl_limit: what is allowed.
        top1_agreement: the share of tokens where both hold the same for the likeliest.
    """

    tensors: int
    worst: tuple[TensorError, ...]
    texts: int
    tokens: int
    kl_mean: float
    kl_limit: float
    top1_agreement: float

    def to_json(self) -> dict[str, object]:
        """Returns the record that ``--json`` prints."""
        return asdict(self)


def verify(
    path: Path,
    *,
    name: Path,
    source: Source,
    tensors: Sequence[Tensor],
    types: Mapping[str, QuantType],
    reference: Callable[[Sequence[int]], NDArray[np.float32]],
    forward: Forward,
) -> Verification:
    """Compares a written GGUF file with its source.

    Args:
        path: where the file can be read.
        name: what it is going to be called.
        source: what it was made of.
        tensors: what it has to hold.
        types: the type that each of them was to get.
        reference: runs tokens through the source in its own precision.
        forward: runs tokens through a GGUF file.

    Raises:
        CheckFailedError: it is something else; says what.
    """
    try:
        with open_gguf(path) as file:
            raise_problems(name, list(_table_problems(file, tensors, types)))
            raise_problems(name, list(config_problems(config_from_gguf(file), source.config)))
            errors = [_tensor_error(file, tensor) for tensor in tensors]
            worst = worst_first(errors)
            written, given = load_tokenizer(file), load_tokenizer(source.path)
            raise_problems(name, [*weight_problems(worst), *text_problems(written, given)])
            limit = _kl_limit(file)
    except CheckFailedError:
        raise
    except EdgeInferError as error:
        raise CheckFailedError(
            f"{name}: the written file cannot be read: {error.message}", hint=error.hint
        ) from error
    tokens = written.encode("\n".join(VERIFIED_TEXTS))[:TOKENS]
    return compared(name, tokens, reference(tokens), forward(path, tokens), worst, limit)


def compared(
    name: Path,
    tokens: Sequence[int],
    expected: NDArray[np.float32],
    logits: NDArray[np.float32],
    worst: Sequence[TensorError],
    limit: float,
) -> Verification:
    """Compares logits, float32 (tokens, vocabulary); the tensors, worst first, have passed.

    Raises:
        CheckFailedError: they are farther apart than ``limit`` nats.
    """
    targets = np.array([*tokens[1:], 0], np.int32)  # of no interest to a divergence
    scores = distance(logits, targets, ReferenceRows.of(expected, targets))
    kl = float(scores.kl.mean())
    if not kl <= limit:
        problem = f"its logits are {kl:.4f} nats from the source's, {limit:.4f} are allowed"
        raise_problems(name, [f"{problem}; worst tensors: {_listed(worst)}"])
    return Verification(
        tensors=len(worst),
        worst=tuple(worst[:LISTED]),
        texts=len(VERIFIED_TEXTS),
        tokens=len(tokens),
        kl_mean=kl,
        kl_limit=limit,
        top1_agreement=float(scores.same_top.mean()),
    )


def worst_first(errors: Iterable[TensorError]) -> list[TensorError]:
    """Sorts by how near errors are to their limits."""
    return sorted(errors, key=lambda found: found.limit / max(found.error, 1e-30))


@cache
def normal_error(type: QuantType) -> float:
    """A type's error on normally distributed weights, over their norm."""
    values = np.random.default_rng(0).standard_normal((64, 1024), np.float32)
    difference = decode(type, encode(type, values), 1024) - values
    return float(np.linalg.norm(difference) / np.linalg.norm(values))


def _table_problems(
    file: GGUFFile, tensors: Sequence[Tensor], types: Mapping[str, QuantType]
) -> Iterator[str]:
    wanted = {tensor.name: tensor.shape for tensor in tensors}
    for name in wanted.keys() - file.tensors.keys():
        yield f"tensor {name!r} is missing"
    for name, info in file.tensors.items():
        if name not in wanted:
            yield f"tensor {name!r} is not of the source"
        elif info.shape != wanted[name]:
            yield f"tensor {name!r} has shape {info.shape}, expected {wanted[name]}"
        elif info.type != types[name].name:
            yield f"tensor {name!r} is {info.type}, expected {types[name].name}"


def config_problems(written: ModelConfig, given: ModelConfig) -> Iterator[str]:
    """The architecture's numbers that are not the source's; a GGUF holds them in float32."""
    for field in fields(ModelConfig):
        found, expected = getattr(written, field.name), getattr(given, field.name)
        if field.name != "name" and not _alike(found, expected):
            yield f"{field.name} is {found!r:.60}, the source's {expected!r:.60}"


def _alike(found: Any, expected: Any) -> bool:
    if isinstance(expected, float):
        return isclose(found, expected, rel_tol=FLOAT32)
    if isinstance(expected, tuple):
        return len(found) == len(expected) and all(map(_alike, found, expected))
    if is_dataclass(expected):
        names = (field.name for field in fields(expected))
        return all(_alike(getattr(found, name), getattr(expected, name)) for name in names)
    return bool(found == expected)


def _tensor_error(file: GGUFFile, tensor: Tensor) -> TensorError:
    rows, columns = matrix_shape(tensor)
    type = by_ggml_id(file.tensors[tensor.name].ggml_id)
    row_bytes = type.nbytes((columns,))
    step = max(1, BLOCK_VALUES // columns)
    difference = size = 0.0
    for first in range(0, rows, step):
        last = min(first + step, rows)
        expected = tensor.read(first, last)
        data = file.read(tensor.name, first * row_bytes, last * row_bytes)
        found = decode(type, data, columns)
        found -= expected
        # By float64 sums of squares: a vocabulary's rows would drown in float32.
        difference += float(np.square(found, dtype=np.float64).sum())
        size += float(np.square(expected, dtype=np.float64).sum())
    error = (difference / size) ** 0.5 if size else float(difference > 0)
    limit = min(WEIGHT_MARGIN * normal_error(type) + LEAST_ERROR, MOST_ERROR)
    return TensorError(name=tensor.name, type=type.name, error=error, limit=limit)


def weight_problems(worst: Sequence[TensorError]) -> Iterator[str]:
    """The tensors that are beyond their limits."""
    for found in worst:
        if not found.error <= found.limit:
            yield (
                f"tensor {found.name!r} ({found.type}) is {found.error:.2%} off its source, "
                f"{found.limit:.2%} are allowed"
            )


def text_problems(written: Tokenizer, given: Tokenizer) -> Iterator[str]:
    """What the file's tokenizer and template do otherwise than the source's."""
    if written.chat_template != given.chat_template:
        yield "the chat template is not the source's"
    for what in ("bos_id", "add_bos", "eos_ids"):
        if getattr(written, what) != getattr(given, what):
            yield f"{what} is {getattr(written, what)}, the source's {getattr(given, what)}"
    for token in range(min(given.vocab_size, written.vocab_size)):
        if written.token_bytes(token) != given.token_bytes(token):
            yield f"token {token} is {written.token_text(token)!r}, not {given.token_text(token)!r}"
    for text in VERIFIED_TEXTS:
        for parse in (True, False):
            ids = given.encode(text, parse_special=parse)
            if written.encode(text, parse_special=parse) != ids:
                yield f"{text!r:.60} has other tokens than in the source"
            elif written.decode(ids) != given.decode(ids):
                yield f"{text!r:.60} is another text after a round trip"


def _kl_limit(file: GGUFFile) -> float:
    squares = weights = 0.0
    all_float = True
    for info in file.tensors.values():
        if len(info.shape) > 1:
            type = by_ggml_id(info.ggml_id)
            all_float &= type.is_float
            squares += prod(info.shape) * normal_error(type) ** 2
            weights += prod(info.shape)
    return KL_MARGIN * squares / max(weights, 1) + KL_OF_ACTIVATIONS[all_float]


def _listed(worst: Sequence[TensorError]) -> str:
    return ", ".join(f"{found.name} {found.error:.2%}" for found in worst[:LISTED])


def raise_problems(name: Path, problems: Sequence[str]) -> None:
    """Raises a CheckFailedError if there are any."""
    if problems:
        more = f" and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
        raise CheckFailedError(
            f"{name}: not what the source is: {'; '.join(problems[:LISTED])}{more}",
            hint="what was there before was left as it was; please report this",
        )
