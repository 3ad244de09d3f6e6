"""The MLC exporter: ``convert`` is what ``edgeinfer convert --to mlc`` runs."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from math import prod
from pathlib import Path

from edgeinfer.device.resident import peak_resident_bytes
from edgeinfer.errors import EdgeInferError, UsageError
from edgeinfer.formats.atomic_folder import AtomicFolder
from edgeinfer.formats.mlc.families import family_of
from edgeinfer.formats.mlc.quants import Quant, get_quant
from edgeinfer.quant.assignment import Overrides
from edgeinfer_converters.checkpoint import GgufSource, HuggingFaceSource, open_source
from edgeinfer_converters.mlc import chat_config, weights
from edgeinfer_converters.mlc.model_config import Settings, settings
from edgeinfer_converters.mlc.shards import ShardWriter
from edgeinfer_converters.mlc.tensors import mlc_tensors
from edgeinfer_converters.mlc.tokenizer_files import tokenizer_info, write_tokenizer
from edgeinfer_converters.pipeline import ConvertReport, Progress, ProgressCallback


def convert(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    quant: str = "q4f16_1",
    mode: str = "mse",
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
        overrides: must be empty; types of single tensors cannot be chosen.
        threads: None for one a processor.
        progress: called after each block of rows.

    Raises:
        UsageError: no such format or mode, an override, or the output is something else.
        NotFoundError: the source, or a file of it, does not exist.
        CorruptFileError: a file is broken, or a tensor missing.
        UnsupportedError: MLC LLM does not know the family, or something that the model does.
    """
    start = time.perf_counter()
    chosen = get_quant(quant)
    if mode not in weights.MODES:
        raise UsageError(f"no mode {mode!r}", hint=f"known: {', '.join(weights.MODES)}")
    if overrides is not None and overrides != Overrides():
        raise UsageError("types of single tensors cannot be chosen for MLC LLM")
    target = Path(output)
    opened = open_source(Path(source))
    try:
        _refuse_to_overwrite(target, opened)
        jobs = weights.plan(mlc_tensors(opened), chosen, mode)
        told = _settings(opened)
        with AtomicFolder(target, mark=chat_config.NAME) as folder:
            nbytes, parameters = _write(opened, jobs, told, chosen, folder.part, threads, progress)
        files = list(opened.files)
    finally:
        opened.close()
    return ConvertReport(
        source=str(opened.path),
        output=str(target),
        format="mlc",
        architecture=opened.arch.name,
        quant=chosen.name,
        bytes_in=sum(file.stat().st_size for file in files),
        bytes_out=sum(file.stat().st_size for file in target.iterdir()),
        parameters=parameters,
        tensors=len(jobs),
        seconds=round(time.perf_counter() - start, 3),
        peak_resident_bytes=peak_resident_bytes(),
        bits_per_weight=round(8 * nbytes / parameters, 4),
        types=dict(Counter(job.type for job in jobs).most_common()),
        replaced={},
        requantised=_requantised(opened, jobs),
        notes=told.notes,
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


def _write(
    source: HuggingFaceSource | GgufSource,
    jobs: Sequence[weights.Job],
    told: Settings,
    quant: Quant,
    folder: Path,
    threads: int | None,
    progress: ProgressCallback | None,
) -> tuple[int, int]:
    """Writes all files; returns the bytes of the weights, and how many weights there are."""
    records = [record for job in jobs for record in job.records()]
    with ShardWriter(folder, records) as writer:
        _require_room(folder, writer.nbytes)
        shown = _Shown(len(jobs), writer.nbytes, progress)
        weights.write(writer, jobs, threads=threads or os.cpu_count() or 1, written=shown)
        parameters = sum(prod(tensor.shape) for tensor in source.tensors)
        writer.finish(parameters)
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
    return writer.nbytes, parameters


def _require_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise EdgeInferError(
            f"{folder.parent}: {size} bytes to write, {free} bytes free on the disk",
            hint="free some space, or choose another output",
        )


def _requantised(
    source: HuggingFaceSource | GgufSource, jobs: Sequence[weights.Job]
) -> dict[str, int]:
    """What was quantised before and had to be decoded and quantised, or widened, anew."""
    if not isinstance(source, GgufSource):
        return {}
    floats = ("f32", "f16", "bf16")
    return dict(
        Counter(
            f"{job.tensor.source_type} -> {job.type}"
            for job in jobs
            if not job.keeps and job.tensor.columns and job.tensor.source_type not in floats
        ).most_common()
    )


class _Shown:
    """Tells how far the writing is."""

    def __init__(self, tensors: int, total: int, progress: ProgressCallback | None) -> None:
        self._tensors, self._total, self._progress = tensors, total, progress
        self._done, self._number, self._last = 0, 0, ""
        self._start = time.perf_counter()

    def __call__(self, name: str, type: str, size: int) -> None:
        self._done += size
        if name != self._last:
            self._number, self._last = self._number + 1, name
        if self._progress is not None:
            self._progress(
                Progress(
                    tensor=name,
                    type=type,
                    number=self._number,
                    tensors=self._tensors,
                    bytes_out=self._done,
                    bytes_total=self._total,
                    seconds=time.perf_counter() - self._start,
                )
            )
