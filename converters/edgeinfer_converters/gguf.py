"""The GGUF converter: ``convert`` is what ``edgeinfer convert --to gguf`` runs."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeinfer.arch import to_gguf
from edgeinfer.arch.tensors import unread
from edgeinfer.errors import UnsupportedError, UsageError
from edgeinfer.formats.ggml_types import FILE_TYPES
from edgeinfer.formats.gguf_writer import GGUFWriter
from edgeinfer.formats.metadata import MetadataValue, ValueType
from edgeinfer.quant import get
from edgeinfer.quant.assignment import Overrides, assign, needs_importance
from edgeinfer.quant.importance import fitted_importance
from edgeinfer.quant.recipes import Recipe, get_recipe
from edgeinfer_converters import metadata
from edgeinfer_converters.checkpoint import GgufSource, HuggingFaceSource
from edgeinfer_converters.lora import convert_lora
from edgeinfer_converters.one_pass import one_pass
from edgeinfer_converters.pipeline import (
    ConvertReport,
    Job,
    Piece,
    ProgressCallback,
    declare,
    report,
    write_job,
    write_tensors,
)
from edgeinfer_converters.tensors import GivenTensor, Tensor
from edgeinfer_converters.verify import Forward, Verification
from edgeinfer_converters.verify import verify as check
from edgeinfer_converters.vocabulary import gguf_vocabulary

QUANTIZATION_VERSION = 2  # of the blocks' layout, since May 2023
# Names that mean a form in every format -> the recipe nearest to what the others write: blocks of
# 32 weights with one float16 scale.
ANY_FORMAT = {"int8": "q8_0", "int4": "q4_0"}


def convert(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    quant: str | None = None,
    lora: str | os.PathLike[str] | None = None,
    merge_lora: str | os.PathLike[str] | None = None,
    overrides: Overrides | None = None,
    importance: Mapping[str, NDArray[np.float32]] | None = None,
    threads: int | None = None,
    progress: ProgressCallback | None = None,
    verify: Forward | None = None,
) -> ConvertReport:
    """Converts a Hugging Face folder to GGUF, or a GGUF file to another quant type.

    Args:
        source: a folder with config.json, safetensors and a tokenizer; or a GGUF file,
            whose metadata is kept and whose weights of the wanted type are copied.
        output: the file to write; it appears when it is complete.
        quant: a recipe; None for q4_k_m, or f16 of an adapter.
        lora: a PEFT adapter of the source, to be converted in place of it.
        merge_lora: a PEFT adapter to add to the weights.
        overrides: types that win over the recipe's.
        importance: how much the squared error of each column of a tensor counts, float32
            (matrices, columns), such as ``ImportanceMatrix.importance()``.
        threads: None for one a processor.
        progress: called after each block of rows.
        verify: runs tokens through a GGUF file; if given, the output is compared with the source
            before it gets its name.

    Raises:
        CheckFailedError: the output is not what the source is; what was there before still is.
        UsageError: no such recipe or type, a pattern that matches nothing, importance of
            another model or none for a type that needs it, or the output is the source.
        NotFoundError: the source, or a file of it, does not exist.
        CorruptFileError: a file is broken, or a tensor missing.
        UnsupportedError: the family, or something in it, is not known.
    """
    if lora is not None:
        others = (
            merge_lora is not None or verify is not None or overrides not in (None, Overrides())
        )
        if others:
            raise UsageError("an adapter is converted as it is", hint="leave the other options out")
        kind = "f16" if quant is None else quant.lower()
        return convert_lora(source, lora, output, quant=kind, threads=threads, progress=progress)

    def planned(opened: HuggingFaceSource | GgufSource) -> GgufExport:
        return export(
            opened,
            Path(output),
            quant=quant,
            overrides=overrides,
            importance=importance,
            threads=threads,
            verify=verify,
        )

    return one_pass(source, [planned], merge_lora=merge_lora, progress=progress)[0]


def export(
    source: HuggingFaceSource | GgufSource,
    output: Path,
    *,
    quant: str | None = None,
    overrides: Overrides | None = None,
    importance: Mapping[str, NDArray[np.float32]] | None = None,
    threads: int | None = None,
    verify: Forward | None = None,
) -> GgufExport:
    """Plans a GGUF file; the arguments and errors are those of ``convert``."""
    name = (quant or "q4_k_m").lower()
    recipe = get_recipe(ANY_FORMAT.get(name, name))
    jobs = _jobs(source, recipe, overrides, importance)
    return GgufExport(source, output, recipe, jobs, threads=threads, verify=verify)


def exact(
    source: HuggingFaceSource | GgufSource, output: Path, *, threads: int | None = None
) -> GgufExport:
    """Plans a GGUF file with the weights as they are: each tensor in the smallest such float type.

    It is what outputs are compared with.
    """
    jobs = [Job(tensor, get(tensor.exact_type)) for tensor in _tensors(source)]
    return GgufExport(source, output, get_recipe("f32"), jobs, threads=threads)


class GgufExport:
    """A GGUF file in the making, see ``pipeline.Export``."""

    def __init__(
        self,
        source: HuggingFaceSource | GgufSource,
        output: Path,
        recipe: Recipe,
        jobs: Sequence[Job],
        *,
        threads: int | None,
        verify: Forward | None = None,
    ) -> None:
        _refuse_to_overwrite(output, source.files)
        if verify is not None and not source.arch.causal:
            raise UnsupportedError(
                f"{source.path}: {source.arch.name}, which has no logits to compare",
                hint="leave --verify out",
            )
        keys = _metadata(source, recipe)
        self.path = output
        self._source, self._recipe, self._verify = source, recipe, verify
        self._threads = threads or os.cpu_count() or 1
        self._jobs = {job.tensor.name: job for job in jobs}
        self._verification: Verification | None = None
        self._writer = GGUFWriter(output)
        try:
            for key, (value, type_) in keys.items():
                self._writer.add_metadata(key, value, type_)
            declare(self._writer, jobs)
        except BaseException:
            self.abort()
            raise

    @property
    def nbytes(self) -> int:
        """As ``Export.nbytes``."""
        return sum(job.nbytes for job in self._jobs.values())

    def write(self, name: str) -> Iterator[Piece]:
        """As ``Export.write``."""
        if name in self._jobs:
            yield from write_job(self._writer, self._jobs[name], self._threads)

    def finish(self) -> Iterator[Piece]:
        """Writes the tensors that a checkpoint has not, and compares, if that was asked for."""
        for tensor in _made(self._source):
            yield from self.write(tensor.name)
        if self._verify is not None:
            jobs = list(self._jobs.values())
            self._verification = _verified(
                self._writer, self.path, self._source, jobs, self._verify
            )
        self._writer.sync()

    def preview(self) -> Path:
        """Where this process can read the finished file before it has its name."""
        return self._writer.preview()

    def commit(self) -> None:
        """As ``Export.commit``."""
        self._writer.finish()

    def abort(self) -> None:
        """As ``Export.abort``."""
        self._writer.abort()

    def report(self, seconds: float) -> ConvertReport:
        """As ``Export.report``."""
        return report(
            source=self._source.path,
            files=self._source.files,
            output=self.path,
            architecture=self._source.arch.name,
            quant=self._recipe.name,
            jobs=list(self._jobs.values()),
            seconds=seconds,
            verification=self._verification,
        )


def _verified(
    writer: GGUFWriter,
    target: Path,
    source: HuggingFaceSource | GgufSource,
    jobs: Sequence[Job],
    forward: Forward,
) -> Verification:
    """Compares what was written with the source, read and laid out anew."""

    def reference(tokens: Sequence[int]) -> NDArray[np.float32]:
        with nameless(source, target) as exact:
            return forward(exact, tokens)

    return check(
        writer.preview(),
        name=target,
        source=source,
        tensors=_tensors(source),
        types={job.tensor.name: job.type for job in jobs},
        reference=reference,
        forward=forward,
    )


@contextmanager
def nameless(source: HuggingFaceSource | GgufSource, beside: Path) -> Iterator[Path]:
    """The source in its own precision, as a GGUF in the folder of another file; gone afterwards."""
    with GGUFWriter(beside) as exact:
        for key, (value, type_) in _metadata(source, get_recipe("f32")).items():
            exact.add_metadata(key, value, type_)
        jobs = [Job(tensor, get(tensor.exact_type)) for tensor in _tensors(source)]
        write_tensors(exact, jobs, threads=1)
        yield exact.preview()
        exact.abort()


def _refuse_to_overwrite(output: Path, files: Sequence[Path]) -> None:
    if output.is_dir():
        raise UsageError(f"{output}: a folder", hint="name the GGUF file to write")
    if any(output.exists() and output.samefile(file) for file in files):
        raise UsageError(f"{output}: that is the source", hint="choose another output")


def _jobs(
    source: HuggingFaceSource | GgufSource,
    recipe: Recipe,
    overrides: Overrides | None,
    importance: Mapping[str, NDArray[np.float32]] | None,
) -> list[Job]:
    shapes = {tensor.name: tensor.shape for tensor in source.tensors}
    known = fitted_importance(importance or {}, shapes)
    choices = assign(
        recipe, shapes, source.config, overrides=overrides, weighted=importance is not None
    )
    jobs = [
        Job(
            tensor,
            choices[tensor.name].type,
            importance=known.get(tensor.name),
            wanted=choices[tensor.name].wanted,
        )
        for tensor in source.tensors
    ]
    _check_importance(jobs, recipe, unread(source.arch, source.config))
    return jobs + [Job(tensor, get("f32")) for tensor in _made(source)]


def _check_importance(jobs: Sequence[Job], recipe: Recipe, unread: Container[str]) -> None:
    """Refuses types that are no good without importance.

    What is copied needs none, nor does what no layer reads.
    """
    for job in jobs:
        name, type_ = job.tensor.name, job.type
        if (
            job.importance is None
            and name not in unread
            and needs_importance(name, type_, recipe.weighted_types)
            and job.tensor.stored_type != type_
        ):
            raise UsageError(
                f"{name!r} cannot be stored as {type_} without an importance matrix",
                hint="--calibrate collects one, --imatrix FILE reads one",
            )


def _made(source: HuggingFaceSource | GgufSource) -> list[Tensor]:
    """The tensors that a GGUF has and a checkpoint has not."""
    if isinstance(source, GgufSource):
        return []
    return [
        GivenTensor(name, values) for name, values in to_gguf.rope_tensors(source.numbers).items()
    ]


def _tensors(source: HuggingFaceSource | GgufSource) -> list[Tensor]:
    """All that the output has to hold."""
    return [*source.tensors, *_made(source)]


# A metadata value with its type; None lets the writer choose.
_Typed = tuple[MetadataValue, ValueType | None]


def _metadata(source: HuggingFaceSource | GgufSource, recipe: Recipe) -> dict[str, _Typed]:
    """Returns all keys, the two that depend on the recipe last changed."""
    if isinstance(source, GgufSource):
        types = source.gguf.metadata.types
        keys: dict[str, _Typed] = {
            key: (value, types[key]) for key, value in source.gguf.metadata.items()
        }
    else:
        keys = {key: (value, None) for key, value in _checkpoint_keys(source).items()}
    keys["general.file_type"] = (FILE_TYPES[recipe.name], ValueType.U32)
    keys["general.quantization_version"] = (QUANTIZATION_VERSION, ValueType.U32)
    return keys


def _array(
    values: tuple[bool, ...] | tuple[int, ...] | tuple[float, ...],
) -> NDArray[np.bool_] | NDArray[np.int32] | NDArray[np.float32]:
    kinds: dict[type, Any] = {bool: np.bool_, int: np.int32, float: np.float32}
    return np.array(values, kinds[type(values[0])])


def _checkpoint_keys(source: HuggingFaceSource) -> Mapping[str, Any]:
    parameters = sum(prod(tensor.shape) for tensor in source.tensors)
    model = {
        key: _array(value) if isinstance(value, tuple) else value
        for key, value in to_gguf.metadata(source.numbers, source.arch).items()
    }
    return {
        "general.architecture": source.arch.name,
        **metadata.general(source.path, parameters),
        **{key: value for key, value in source.stated.items() if key.startswith("general.")},
        **model,
        **gguf_vocabulary(source.path, source.config.vocab_size),
        **metadata.chat_templates(source.path),
    }
