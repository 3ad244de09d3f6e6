"""The MLC exporter: ``convert`` is what ``edgeinfer convert --to mlc`` runs."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path

from edgeinfer.device.resident import peak_resident_bytes
from edgeinfer.errors import EdgeInferError, UsageError, known_names
from edgeinfer.formats.atomic_folder import AtomicFolder
from edgeinfer.formats.mlc.families import family_of
from edgeinfer.formats.mlc.quants import Quant, get_quant
from edgeinfer.quant.assignment import Overrides
from edgeinfer_converters.checkpoint import GgufSource, HuggingFaceSource
from edgeinfer_converters.mlc import chat_config, weights
from edgeinfer_converters.mlc.model_config import Settings, settings
from edgeinfer_converters.mlc.shards import ShardWriter
from edgeinfer_converters.mlc.tensors import mlc_tensors
from edgeinfer_converters.mlc.tokenizer_files import tokenizer_info, write_tokenizer
from edgeinfer_converters.one_pass import one_pass
from edgeinfer_converters.pipeline import ConvertReport, Piece, ProgressCallback


def convert(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    quant: str = "q4f16_1",
    mode: str = "mse",
    merge_lora: str | os.PathLike[str] | None = None,
    overrides: Overrides | None = None,
    threads: int | None = None,
    progress: ProgressCallback | None = None,
) -> ConvertReport:
    """Exports a Hugging Face folder or a GGUF file to a folder for MLC LLM.

    4-bit weights of a GGUF's Q4_0 keep their values bit for bit; other quantised types are
    decoded and quantised anew, which the report says.

    Args:
        source: a folder with config.json, safetensors and a tokenizer; or a GGUF file.
        output: the folder to write; it appears when it is complete.
        quant: one of MLC LLM's names, such as q4f16_1.
        mode: "mse" searches for codes and scales with a small error; "mlc" writes the bytes
            that MLC LLM's own converter writes.
        merge_lora: a PEFT adapter to add to the weights.
        overrides: must be empty; types of single tensors cannot be chosen.
        threads: None for one a processor.
        progress: called after each block of rows.

    Raises:
        UsageError: no such format or mode, an override, or the output is something else.
        NotFoundError: the source, or a file of it, does not exist.
        CorruptFileError: a file is broken, or a tensor missing.
        UnsupportedError: MLC LLM does not know the family, or something that the model does.
    """

    def planned(opened: HuggingFaceSource | GgufSource) -> MlcExport:
        return export(
            opened, Path(output), quant=quant, mode=mode, overrides=overrides, threads=threads
        )

    return one_pass(source, [planned], merge_lora=merge_lora, progress=progress)[0]


def export(
    source: HuggingFaceSource | GgufSource,
    output: Path,
    *,
    quant: str = "q4f16_1",
    mode: str = "mse",
    overrides: Overrides | None = None,
    threads: int | None = None,
) -> MlcExport:
    """Plans a folder; the arguments and errors are those of ``convert``."""
    chosen = get_quant(quant)
    if mode not in weights.MODES:
        raise UsageError(f"no mode {mode!r}", hint=known_names(mode, weights.MODES))
    if overrides is not None and overrides != Overrides():
        raise UsageError("types of single tensors cannot be chosen for MLC LLM")
    _refuse_to_overwrite(output, source)
    jobs = weights.plan(mlc_tensors(source), chosen, mode)
    return MlcExport(source, output, jobs, chosen, threads)


class MlcExport:
    """A folder in the making, see ``pipeline.Export``."""

    def __init__(
        self,
        source: HuggingFaceSource | GgufSource,
        output: Path,
        jobs: Sequence[weights.Job],
        quant: Quant,
        threads: int | None,
    ) -> None:
        self.path = output
        self._source, self._jobs, self._quant = source, jobs, quant
        self._parameters = sum(prod(tensor.shape) for tensor in source.tensors)
        told = _settings(source)
        self._folder = AtomicFolder(output, mark=chat_config.NAME)
        try:
            with self._folder.explained():
                _describe(source, told, quant, self._folder.part)
                records = [record for job in jobs for record in job.records()]
                self._shards = ShardWriter(self._folder.part, records)
                _require_room(self._folder.part, self._shards.nbytes)
        except BaseException:
            self._folder.abort()
            raise
        self._notes = told.notes
        self._writing = weights.Writing(self._shards, jobs, threads or os.cpu_count() or 1)

    @property
    def nbytes(self) -> int:
        """As ``Export.nbytes``."""
        return self._shards.nbytes

    def write(self, name: str) -> Iterator[Piece]:
        """As ``Export.write``."""
        with self._folder.explained():
            yield from self._writing.write(name)

    def finish(self) -> Iterator[Piece]:
        """As ``Export.finish``."""
        with self._folder.explained():
            self._shards.finish(self._parameters)
        self._folder.sync()
        yield from ()

    def commit(self) -> None:
        """As ``Export.commit``."""
        self._folder.commit()

    def abort(self) -> None:
        """As ``Export.abort``."""
        self._writing.close()
        self._shards.close()
        self._folder.abort()

    def report(self, seconds: float) -> ConvertReport:
        """As ``Export.report``."""
        source = self._source
        return ConvertReport(
            source=str(source.path),
            output=str(self.path),
            format="mlc",
            architecture=source.arch.name,
            quant=self._quant.name,
            bytes_in=sum(file.stat().st_size for file in source.files),
            bytes_out=sum(file.stat().st_size for file in self.path.iterdir()),
            parameters=self._parameters,
            tensors=len(self._jobs),
            seconds=round(seconds, 3),
            peak_resident_bytes=peak_resident_bytes(),
            bits_per_weight=round(8 * self._shards.nbytes / self._parameters, 4),
            types=dict(Counter(job.type for job in self._jobs).most_common()),
            replaced={},
            requantised=_requantised(self._jobs),
            notes=self._notes,
        )


def _refuse_to_overwrite(output: Path, source: HuggingFaceSource | GgufSource) -> None:
    if output.exists() and output.resolve() in (
        source.path.resolve(),
        *(file.resolve().parent for file in source.files),
    ):
        raise UsageError(f"{output}: the source is there", hint="choose another output")


def _settings(source: HuggingFaceSource | GgufSource) -> Settings:
    family = family_of(source.arch, source.config)
    biases = any(tensor.name.endswith("attn_q.bias") for tensor in source.tensors)
    return settings(family.model_type, source.numbers, source.arch.activation, biases)


def _describe(
    source: HuggingFaceSource | GgufSource, told: Settings, quant: Quant, folder: Path
) -> None:
    """Writes everything but the weights."""
    tokenizer, files = write_tokenizer(source, folder)
    config = chat_config.chat_config(
        model_type=family_of(source.arch, source.config).model_type,
        quant=quant.name,
        settings=told,
        vocab_size=source.config.vocab_size,
        tokenizer=tokenizer,
        tokenizer_files=files,
        tokenizer_info=tokenizer_info(folder / "tokenizer.json"),
        sampling=chat_config.sampling(source),
        template=chat_config.template(tokenizer, told.notes),
    )
    (folder / chat_config.NAME).write_text(
        json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def _require_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise EdgeInferError(
            f"{folder.parent}: {size} bytes to write, {free} bytes free on the disk",
            hint="free some space, or choose another output",
        )


def _requantised(jobs: Sequence[weights.Job]) -> dict[str, int]:
    """What was quantised before and had to be decoded and quantised, or widened, anew."""
    floats = ("f32", "f16", "bf16")
    return dict(
        Counter(
            f"{job.tensor.source_type} -> {job.type}"
            for job in jobs
            if not job.keeps and job.tensor.columns and job.tensor.source_type not in floats
        ).most_common()
    )
