"""Reading, mapping, quantising and writing, one block of rows after the other."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeinfer.device.resident import peak_resident_bytes
from edgeinfer.formats.gguf_writer import GGUFWriter
from edgeinfer.quant import QuantType
from edgeinfer_converters.quantize import encoded_blocks
from edgeinfer_converters.tensors import Tensor
from edgeinfer_converters.verify import Verification


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a conversion is.

    Attributes:
        tensor: the tensor being written.
        type: what it is stored as.
        number: of the source's tensor, from 1.
        tensors: how many the source has.
        bytes_out: bytes of tensors written so far.
        bytes_total: bytes of tensors when all is written.
        seconds: since the start.
    """

    tensor: str
    type: str
    number: int
    tensors: int
    bytes_out: int
    bytes_total: int
    seconds: float


ProgressCallback = Callable[[Progress], None]
Piece = tuple[str, str, int]  # of a tensor, what it is stored as, and how many bytes were written


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertReport:
    """What a conversion did.

    Attributes:
        source: what was converted.
        output: the file that was written.
        format: of the output.
        architecture: the family.
        quant: the recipe.
        bytes_in: size of the source's weight files.
        bytes_out: size of the output.
        parameters: how many weights.
        tensors: how many tensors were written.
        seconds: how long it took.
        peak_resident_bytes: memory that the process took at its peak, pages of files included.
        bits_per_weight: bits of tensor data over weights.
        types: quant type -> how many tensors have it.
        replaced: "wanted type -> type" -> how many tensors have rows that are not whole blocks
            of the type that was wanted.
        requantised: "type -> type" -> how many quantised tensors of the source were decoded
            and encoded anew.
        verification: what a comparison with the source found, if it was asked for.
        notes: where the format's programs compute something else than the model does.
    """

    source: str
    output: str
    format: str
    architecture: str
    quant: str
    bytes_in: int
    bytes_out: int
    parameters: int
    tensors: int
    seconds: float
    peak_resident_bytes: int
    bits_per_weight: float
    types: dict[str, int]
    replaced: dict[str, int]
    requantised: dict[str, int] = field(default_factory=dict)
    verification: Verification | None = None
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, object]:
        """Returns the record that ``--json`` prints."""
        return asdict(self)


class Export(Protocol):
    """An output in the making: planned from headers alone, then fed the source's tensors.

    Whatever can be refused is refused when it is made, before weights are read. Until
    ``commit`` it has no name, and what was there before is as it was.
    """

    @property
    def nbytes(self) -> int:
        """Bytes of weights that will be written."""

    def write(self, name: str) -> Iterator[Piece]:
        """Writes what becomes of a tensor of the source, a block of rows at a time."""

    def finish(self) -> Iterator[Piece]:
        """Writes what is not of the source's tensors; then all is on disk but the name."""

    def commit(self) -> None:
        """Gives the output its name."""

    def abort(self) -> None:
        """Forgets what was written; after a commit it does nothing."""

    def report(self, seconds: float) -> ConvertReport:
        """Sums up the conversion, when it is done."""


@dataclass(frozen=True, slots=True)
class Job:
    """A tensor and how it will be stored.

    Attributes:
        tensor: what is written.
        type: what it is stored as.
        importance: float32 (matrices, columns): how much the squared error of each column counts.
        wanted: the type that its rows, not being whole blocks of it, cannot be stored as.
    """

    tensor: Tensor
    type: QuantType
    importance: NDArray[np.float32] | None = None
    wanted: QuantType | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of its data in the output."""
        return self.type.nbytes(self.tensor.shape)


def declare(writer: GGUFWriter, jobs: Sequence[Job]) -> None:
    """Writes the header; the metadata must be in the writer already."""
    for job in jobs:
        writer.declare_tensor(job.tensor.name, job.type.name, job.tensor.shape)
    writer.begin()


def write_job(writer: GGUFWriter, job: Job, threads: int) -> Iterator[Piece]:
    """Encodes and writes a tensor.

    Holds a block of rows at a time, as float32 and encoded.
    """
    for block in encoded_blocks(job.tensor, job.type, threads=threads, importance=job.importance):
        writer.write(job.tensor.name, block)
        yield job.tensor.name, job.type.name, block.nbytes


def write_tensors(
    writer: GGUFWriter,
    jobs: Sequence[Job],
    *,
    threads: int,
    progress: ProgressCallback | None = None,
) -> None:
    """Declares, encodes and writes tensors; the metadata must be in the writer already."""
    declare(writer, jobs)
    told = Teller(len(jobs), sum(job.nbytes for job in jobs), progress)
    for number, job in enumerate(jobs, 1):
        for piece in write_job(writer, job, threads):
            told(number, piece)


class Teller:
    """Tells how far the writing is."""

    def __init__(self, tensors: int, total: int, progress: ProgressCallback | None) -> None:
        self._tensors, self._total, self._progress = tensors, total, progress
        self._done = 0
        self._start = time.perf_counter()

    def __call__(self, number: int, piece: Piece) -> None:
        """Adds a piece of the ``number``th tensor."""
        name, type_, size = piece
        self._done += size
        if self._progress is not None:
            self._progress(
                Progress(
                    tensor=name,
                    type=type_,
                    number=number,
                    tensors=self._tensors,
                    bytes_out=self._done,
                    bytes_total=self._total,
                    seconds=time.perf_counter() - self._start,
                )
            )


def report(
    *,
    source: Path,
    files: Iterable[Path],
    output: Path,
    architecture: str,
    quant: str,
    jobs: Sequence[Job],
    seconds: float,
    verification: Verification | None = None,
) -> ConvertReport:
    """Sums up a conversion that is done."""
    parameters = sum(prod(job.tensor.shape) for job in jobs)
    return ConvertReport(
        source=str(source),
        output=str(output),
        format="gguf",
        architecture=architecture,
        quant=quant,
        bytes_in=sum(file.stat().st_size for file in files),
        bytes_out=output.stat().st_size,
        parameters=parameters,
        tensors=len(jobs),
        seconds=round(seconds, 3),
        peak_resident_bytes=peak_resident_bytes(),
        bits_per_weight=round(8 * sum(job.nbytes for job in jobs) / parameters, 4),
        types=dict(Counter(job.type.name for job in jobs).most_common()),
        replaced=dict(
            Counter(
                f"{job.wanted} -> {job.type}" for job in jobs if job.wanted not in (None, job.type)
            ).most_common()
        ),
        requantised=dict(_requantised(jobs).most_common()),
        verification=verification,
    )


def _requantised(jobs: Sequence[Job]) -> Counter[str]:
    changes: Counter[str] = Counter()
    for job in jobs:
        kept = job.tensor.stored_type
        if kept not in (None, job.type) and not kept.is_float:
            changes[f"{kept} -> {job.type}"] += 1
    return changes
