"""Writes weights: a block of rows is read, quantised and put in its place, then the next."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from edgeinfer.formats.mlc.quants import Quant
from edgeinfer.quant import get
from edgeinfer_converters.mlc.packing import Floats, Words, encode_as_mlc, stored
from edgeinfer_converters.mlc.search import Q4_0, encode_searched, from_q4_0
from edgeinfer_converters.mlc.shards import AS_BFLOAT16, AS_IT_IS, Record, ShardWriter
from edgeinfer_converters.mlc.tensors import MlcTensor, Slice
from edgeinfer_converters.pipeline import Piece
from edgeinfer_converters.quantize import BLOCK_VALUES, check_values

MODES = ("mse", "mlc")

_ENDS = ("embed_tokens.weight", "embd.weight", "lm_head.weight")
_EMBEDDINGS = _ENDS[:2]
_CHECKED = {"float16": "f16"}  # the other types hold any finite weight


@dataclass(slots=True, kw_only=True)
class Job:
    """A tensor and how it will be stored.

    Attributes:
        tensor: what is written.
        quant: how its matrix is quantised, None if it is not.
        keeps: the source has Q4_0 blocks, whose values the format holds.
        mode: "mse" or "mlc".
        dtype: of floats.
    """

    tensor: MlcTensor
    quant: Quant | None
    keeps: bool
    mode: str
    dtype: str

    @property
    def type(self) -> str:
        """What the report calls it."""
        return self.quant.name if self.quant else self.dtype

    @property
    def transposed(self) -> bool:
        """Stored as (words, rows)."""
        return bool(self.quant and self.quant.transposed) and not self._name(_EMBEDDINGS)

    def records(self) -> list[Record]:
        """Returns what lies in the files: words and scales, or the weights."""
        name = self.tensor.name
        # MLC LLM's converter stores float32 in 16 bits, also under the name of q0f32.
        exact = AS_BFLOAT16 if self.mode == "mlc" else AS_IT_IS
        if self.quant is None:
            return [Record(name=name, shape=self.tensor.shape, dtype=self.dtype, format=exact)]
        rows, columns = self.tensor.shape
        groups = self.quant.groups(columns)
        shapes = [(rows, groups * self.quant.words_per_group), (rows, groups)]
        if self.transposed:
            shapes = [(width, height) for height, width in shapes]
        stem = name.removesuffix("weight")
        format = exact if self.keeps else AS_BFLOAT16  # searched scales are such values
        return [
            Record(name=f"{stem}q_weight", shape=shapes[0], dtype="uint32"),
            Record(name=f"{stem}q_scale", shape=shapes[1], dtype=self.dtype, format=format),
        ]

    def _name(self, ends: Sequence[str]) -> bool:
        return self.tensor.name.endswith(tuple(ends))


def plan(tensors: Sequence[MlcTensor], quant: Quant, mode: str) -> list[Job]:
    """Decides how each tensor is stored."""
    jobs = []
    for tensor in tensors:
        quantised = quant.bits and tensor.columns is not None
        if not quant.ends and tensor.name.endswith(_ENDS):
            quantised = False
        keeps = (
            bool(quantised)
            and mode == "mse"
            and quant.bits == 4
            and quant.dtype != "bfloat16"
            and all(part.tensor.stored_type == get(Q4_0) for part in tensor.slices)
        )
        jobs.append(
            Job(
                tensor=tensor,
                quant=quant if quantised else None,
                keeps=keeps,
                mode=mode,
                dtype=quant.dtype,
            )
        )
    return jobs


class Writing:
    """Writes tensors, a block of rows of one at a time.

    Args:
        writer: of the shards.
        jobs: all tensors.
        threads: that quantise.
    """

    def __init__(self, writer: ShardWriter, jobs: Sequence[Job], threads: int) -> None:
        self._writer, self._threads = writer, threads
        self._jobs: dict[str, list[Job]] = defaultdict(list)  # of a source tensor
        for job in jobs:
            for name in dict.fromkeys(part.tensor.name for part in job.tensor.slices):
                self._jobs[name].append(job)
        self._pool = ThreadPoolExecutor(threads)

    def write(self, source: str) -> Iterator[Piece]:
        """Writes all that comes from a source tensor.

        Raises:
            CorruptFileError: a weight is not finite.
            UnsupportedError: a weight is too large for float16.
        """
        for job in self._jobs.get(source, ()):
            most = max(1, BLOCK_VALUES // (job.tensor.columns or 1))
            for row, part, first, last in job.tensor.blocks(source, most):
                size = _write_block(
                    self._writer, job, row, part, first, last, self._pool, self._threads
                )
                yield job.tensor.name, job.type, size

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown()


def _write_block(
    writer: ShardWriter,
    job: Job,
    row: int,
    part: Slice,
    first: int,
    last: int,
    pool: ThreadPoolExecutor,
    threads: int,
) -> int:
    tensor, quant = job.tensor, job.quant
    if job.keeps and quant is not None:
        blocks = part.stored(Q4_0, first, last)
        assert blocks is not None
        words, scales = from_q4_0(blocks, quant)
    else:
        values = part.read(first, last)
        check_values(tensor.name, _CHECKED.get(job.dtype, job.dtype), values)
        if quant is None:
            flat = values if tensor.columns else values.reshape(-1)
            return writer.write(tensor.name, stored(flat, job.dtype), row)
        words, scales = _encoded(values, quant, job.mode, pool, threads)
    put = writer.write_columns if job.transposed else writer.write
    code, scale = (record.name for record in job.records())
    return put(code, words, row) + put(scale, stored(scales, job.dtype), row)


def _encoded(
    values: Floats, quant: Quant, mode: str, pool: ThreadPoolExecutor, threads: int
) -> tuple[Words, Floats]:
    if mode == "mse" and quant.bits == 4:
        return encode_searched(values, quant, threads=threads)  # native threads
    pieces = np.array_split(values, min(threads, len(values)))

    def encode(piece: Floats) -> tuple[Words, Floats]:
        if mode == "mlc":
            return encode_as_mlc(piece, quant)
        return encode_searched(piece, quant, threads=1)

    words, scales = zip(*pool.map(encode, pieces), strict=True)
    return np.concatenate(words), np.concatenate(scales)
