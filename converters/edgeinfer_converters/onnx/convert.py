"""The ONNX exporter: ``convert`` is what ``edgeinfer convert --to onnx`` runs."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any

from edgeinfer.arch import ModelConfig
from edgeinfer.arch.config import Norm
from edgeinfer.device.resident import peak_resident_bytes
from edgeinfer.errors import UnsupportedError, UsageError
from edgeinfer.formats import onnx_folder
from edgeinfer.formats.atomic_folder import AtomicFolder
from edgeinfer.planner.resident import merges_of
from edgeinfer.quant.assignment import Overrides
from edgeinfer_converters import metadata
from edgeinfer_converters.checkpoint import GgufSource, HuggingFaceSource
from edgeinfer_converters.one_pass import one_pass
from edgeinfer_converters.onnx import data_file, genai
from edgeinfer_converters.onnx.decoder import draw
from edgeinfer_converters.onnx.forms import get_recipe
from edgeinfer_converters.onnx.graph import Graph
from edgeinfer_converters.onnx.tokenizer_files import write_tokenizer
from edgeinfer_converters.onnx.weights import Weights
from edgeinfer_converters.pipeline import ConvertReport, Piece, ProgressCallback

INSTALL = "pip install 'edgeinfer[onnx]'"
MOST_CONTEXT = 32768  # tokens of rotary tables, unless more are asked for


def convert(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    quant: str = "int4",
    context: int | None = None,
    merge_lora: str | os.PathLike[str] | None = None,
    overrides: Overrides | None = None,
    threads: int | None = None,
    progress: ProgressCallback | None = None,
) -> ConvertReport:
    """Exports a Hugging Face folder or a GGUF file to a folder for ONNX Runtime.

    Weights of a GGUF whose type ONNX Runtime multiplies fast (q4_0, q5_0, q6_k, q8_0) keep
    their values where the recipe allows as many bits; others are encoded anew, which the
    report says. The folder has model.onnx, its data, a tokenizer and genai_config.json.

    Args:
        source: a folder with config.json, safetensors and a tokenizer; or a GGUF file.
        output: the folder to write; it appears when it is complete.
        quant: f32, f16, int8, int4 or int2.
        context: tokens the model will be able to read; None for the trained context up to
            32768. It decides between LongRoPE's long and short divisors.
        merge_lora: a PEFT adapter to add to the weights.
        overrides: must be empty; types of single tensors cannot be chosen.
        threads: None for one a processor.
        progress: called after each block of rows.

    Raises:
        UsageError: no such recipe, an override, or the output is something else.
        NotFoundError: the source, or a file of it, does not exist.
        CorruptFileError: a file is broken, or a tensor missing.
        UnsupportedError: the family is not known or has experts, or onnx-ir is not installed.
    """

    def planned(opened: HuggingFaceSource | GgufSource) -> OnnxExport:
        return export(
            opened,
            Path(output),
            quant=quant,
            context=context,
            overrides=overrides,
            threads=threads,
        )

    return one_pass(source, [planned], merge_lora=merge_lora, progress=progress)[0]


def export(
    source: HuggingFaceSource | GgufSource,
    output: Path,
    *,
    quant: str = "int4",
    context: int | None = None,
    overrides: Overrides | None = None,
    threads: int | None = None,
) -> OnnxExport:
    """Plans a folder; the arguments and errors are those of ``convert``."""
    quant = quant.lower()
    recipe = get_recipe(quant)
    if overrides is not None and overrides != Overrides():
        raise UsageError("types of single tensors cannot be chosen for ONNX")
    _require_library()
    config, tokens = _numbers(source, context)
    return OnnxExport(source, output, Weights(source, recipe), config, tokens, quant, threads)


class OnnxExport:
    """A folder in the making, see ``pipeline.Export``."""

    def __init__(
        self,
        source: HuggingFaceSource | GgufSource,
        output: Path,
        weights: Weights,
        config: ModelConfig,
        context: int,
        quant: str,
        threads: int | None,
    ) -> None:
        self.path = output
        self._source, self._weights, self._quant = source, weights, quant
        self._threads = threads or os.cpu_count() or 1
        self._folder = AtomicFolder(output, mark=genai.NAME)
        try:
            with self._folder.explained():
                _describe(weights, config, context, quant, self._folder.part)
                self._file = (self._folder.part / data_file.NAME).open("w+b")
                self._file.truncate(weights.data.size)
        except BaseException:
            self._folder.abort()
            raise

    @property
    def nbytes(self) -> int:
        """As ``Export.nbytes``."""
        return self._weights.nbytes

    def write(self, name: str) -> Iterator[Piece]:
        """As ``Export.write``."""
        with self._folder.explained():
            yield from self._weights.write(self._file, name, threads=self._threads)

    def finish(self) -> Iterator[Piece]:
        """As ``Export.finish``."""
        with self._folder.explained():
            yield from self._weights.write_given(self._file)
            self._file.close()
        self._folder.sync()

    def commit(self) -> None:
        """As ``Export.commit``."""
        self._folder.commit()

    def abort(self) -> None:
        """As ``Export.abort``."""
        with suppress(OSError):  # closing writes what is buffered, and nobody wants it
            self._file.close()
        self._folder.abort()

    def report(self, seconds: float) -> ConvertReport:
        """As ``Export.report``."""
        source, weights = self._source, self._weights
        return ConvertReport(
            source=str(source.path),
            output=str(self.path),
            format="onnx",
            architecture=source.arch.name,
            quant=self._quant,
            bytes_in=sum(file.stat().st_size for file in source.files),
            bytes_out=sum(file.stat().st_size for file in self.path.iterdir()),
            seconds=round(seconds, 3),
            peak_resident_bytes=peak_resident_bytes(),
            parameters=_parameters(source),
            tensors=len(source.tensors),
            bits_per_weight=round(8 * weights.data.size / _parameters(source), 4),
            types=dict(weights.types.most_common()),
            replaced={},
            requantised=dict(weights.changes.most_common()),
        )


def _require_library() -> None:
    try:
        importlib.import_module("onnx_ir")
    except ImportError as error:
        raise UnsupportedError(f"exporting to ONNX needs onnx-ir: {error}", hint=INSTALL) from error


def _numbers(
    source: HuggingFaceSource | GgufSource, context: int | None
) -> tuple[ModelConfig, int]:
    """The model's numbers for so many tokens, and how many those are."""
    if source.config.is_recurrent:
        raise UnsupportedError(
            f"{source.path}: {source.arch.name} has layers with a running state, "
            "which cannot be exported to ONNX yet",
            hint="--to gguf keeps this model as it is",
        )
    if source.config.experts:
        raise UnsupportedError(
            f"{source.path}: a model with experts, which cannot be exported to ONNX yet",
            hint="convert it to GGUF: --to gguf",
        )
    if source.config.norm is not Norm.RMS or not source.config.gated:
        raise UnsupportedError(
            f"{source.path}: {source.arch.name}, which cannot be exported to ONNX yet",
            hint="convert it to GGUF: --to gguf",
        )
    if context is not None and context < 1:
        raise UsageError(f"context is {context}, it must be at least 1")
    tokens = context or min(source.config.context, MOST_CONTEXT)
    return source.numbers.model_config(source.arch, tokens), tokens


def _describe(weights: Weights, config: ModelConfig, tokens: int, quant: str, folder: Path) -> None:
    """Writes everything but the data, whose tensors are then declared."""
    source, floats = weights.source, weights.recipe.floats
    graph = Graph(floats)
    draw(graph, config, weights, tokens)
    octets = graph.serialized(version("edgeinfer"))
    (folder / onnx_folder.GRAPH).write_bytes(octets)
    ids = write_tokenizer(source, folder)
    genai.write_config(folder, onnx_folder.GRAPH, config, tokens, ids)
    onnx_folder.OnnxFolder(
        path=folder,
        config=config,
        context=tokens,
        quant=quant,
        floats=floats,
        matrices=weights.matrices(),
        files={onnx_folder.GRAPH: len(octets), data_file.NAME: weights.data.size},
        merges=_merges(source),
        metadata=_general(source),
    ).write(folder)


def _merges(source: HuggingFaceSource | GgufSource) -> int:
    vocab_size = source.config.vocab_size  # a checkpoint is taken to have as many
    if isinstance(source, GgufSource):
        return merges_of(source.gguf.metadata, vocab_size)
    return vocab_size


def _parameters(source: HuggingFaceSource | GgufSource) -> int:
    return sum(prod(tensor.shape) for tensor in source.tensors)


def _general(source: HuggingFaceSource | GgufSource) -> dict[str, Any]:
    if isinstance(source, GgufSource):
        keys = {k: v for k, v in source.gguf.metadata.items() if k.startswith("general.")}
    else:
        keys = metadata.general(source.path, _parameters(source))
    return {k: v for k, v in keys.items() if isinstance(v, (str, int, float, bool))}
