"""The ONNX exporter: ``convert`` is what ``edgeinfer convert --to onnx`` runs."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeinfer.arch import ModelConfig
from edgeinfer.device.resident import peak_resident_bytes, trim_heap
from edgeinfer.errors import UnsupportedError, UsageError
from edgeinfer.formats import onnx_folder
from edgeinfer.formats.atomic_folder import AtomicFolder
from edgeinfer.formats.onnx_library import onnxruntime
from edgeinfer.planner.resident import merges_of
from edgeinfer.quant.assignment import Overrides
from edgeinfer.quant.importance import fitted_importance
from edgeinfer_converters import metadata
from edgeinfer_converters.checkpoint import GgufSource, HuggingFaceSource
from edgeinfer_converters.gguf import nameless
from edgeinfer_converters.one_pass import one_pass
from edgeinfer_converters.onnx import data_file, genai
from edgeinfer_converters.onnx.cache import Cache, CacheScales, check_type
from edgeinfer_converters.onnx.decoder import beyond_the_graph, draw
from edgeinfer_converters.onnx.forms import Recipe, get_recipe
from edgeinfer_converters.onnx.graph import Graph
from edgeinfer_converters.onnx.scales import measured, pieces
from edgeinfer_converters.onnx.tokenizer_files import tokenizer_of, write_tokenizer
from edgeinfer_converters.onnx.verify import verify as check
from edgeinfer_converters.onnx.weights import Weights
from edgeinfer_converters.pipeline import ConvertReport, Piece, ProgressCallback
from edgeinfer_converters.verify import Forward, Verification

INSTALL = "pip install 'edgeinfer[onnx]'"
MOST_CONTEXT = 32768  # tokens of rotary tables, unless more are asked for


def convert(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    quant: str = "int4",
    context: int | None = None,
    cache: str | None = None,
    merge_lora: str | os.PathLike[str] | None = None,
    overrides: Overrides | None = None,
    importance: Mapping[str, NDArray[np.float32]] | None = None,
    threads: int | None = None,
    progress: ProgressCallback | None = None,
    verify: Forward | None = None,
) -> ConvertReport:
    """Exports a Hugging Face folder or a GGUF file to a folder for ONNX Runtime.

    Weights of a GGUF whose type ONNX Runtime multiplies fast (q3_k, q4_0, q5_0, q6_k, q8_0)
    keep their values where the recipe allows as many bits, those of q4_1 and q4_k nearly; others
    are encoded anew. The report says which. The folder has model.onnx, its data, a tokenizer
    and genai_config.json.

    Args:
        source: a folder with config.json, safetensors and a tokenizer; or a GGUF file.
        output: the folder to write; it appears when it is complete.
        quant: f32, f16, int8, int4 or int2.
        context: tokens the model will be able to read; None for the trained context up to
            32768. It decides between LongRoPE's long and short divisors.
        cache: type of cached keys and values: f32, f16 or int8; None for that of the recipe's
            floats. The scales of int8 are measured, by running the model on a text.
        merge_lora: a PEFT adapter to add to the weights.
        overrides: must be empty; types of single tensors cannot be chosen.
        importance: how much the squared error of each column of a tensor counts, float32
            (matrices, columns), such as ``ImportanceMatrix.importance()``. Weights that keep
            their values are not changed by it.
        threads: None for one a processor.
        progress: called after each block of rows.
        verify: runs tokens through a GGUF file; if given, the output is compared with the source
            before it gets its name.

    Raises:
        UsageError: no such recipe, an override, or the output is something else.
        NotFoundError: the source, or a file of it, does not exist.
        CorruptFileError: a file is broken, or a tensor missing.
        UnsupportedError: the family is not known or has experts, or onnx-ir is not installed, or of
            an int8 cache or ``verify`` onnxruntime.
    """

    def planned(opened: HuggingFaceSource | GgufSource) -> OnnxExport:
        return export(
            opened,
            Path(output),
            quant=quant,
            context=context,
            cache=cache,
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
    quant: str = "int4",
    context: int | None = None,
    cache: str | None = None,
    overrides: Overrides | None = None,
    importance: Mapping[str, NDArray[np.float32]] | None = None,
    threads: int | None = None,
    verify: Forward | None = None,
) -> OnnxExport:
    """Plans a folder; the arguments and errors are those of ``convert``."""
    quant = quant.lower()
    recipe = get_recipe(quant)
    if overrides is not None and overrides != Overrides():
        raise UsageError("types of single tensors cannot be chosen for ONNX")
    cache = (cache or recipe.floats).lower()
    check_type(cache, recipe.floats)
    _require_library()
    if cache == "int8" or verify is not None:
        onnxruntime()  # which runs what was written, when all is
    return OnnxExport(
        source,
        output,
        recipe=recipe,
        quant=quant,
        cache=cache,
        context=context,
        importance=importance or {},
        threads=threads,
        verify=verify,
    )


class OnnxExport:
    """A folder in the making, see ``pipeline.Export``."""

    def __init__(
        self,
        source: HuggingFaceSource | GgufSource,
        output: Path,
        *,
        recipe: Recipe,
        quant: str,
        cache: str,
        context: int | None,
        importance: Mapping[str, NDArray[np.float32]],
        threads: int | None,
        verify: Forward | None,
    ) -> None:
        self.path = output
        self._verify = verify
        self._verification: Verification | None = None
        self._config, self._context = _numbers(source, context)
        self._source, self._quant, self._cache = source, quant, cache
        shapes = {tensor.name: tensor.shape for tensor in source.tensors}
        columns = {n: rows[0] for n, rows in fitted_importance(importance, shapes).items()}
        self._weights = Weights(source, recipe, columns)
        self._threads = threads or os.cpu_count() or 1
        self._folder = AtomicFolder(output, mark=genai.NAME)
        try:
            with self._folder.explained():
                # The scales of an int8 cache are not known yet, and are seen with one of floats.
                floats = recipe.floats if cache == "int8" else cache
                self._graph = self._drawn(Cache(floats))
                self._folder.reserve(self._weights.data.size)
                tokenizer = tokenizer_of(source)
                self._pieces = pieces(tokenizer, self._context) if cache == "int8" else ()
                self._ids = write_tokenizer(source, tokenizer, self._folder.part)
                del tokenizer
                trim_heap()  # of a vocabulary and its merges
                self._file = (self._folder.part / data_file.NAME).open("w+b")
                self._file.truncate(self._weights.data.size)
        except BaseException:
            self._folder.abort()
            raise

    def _drawn(self, cache: Cache) -> bytes:
        """The graph, whose tensors are then declared."""
        graph = Graph(self._weights.recipe.floats)
        draw(graph, self._config, self._weights, self._context, cache)
        unused = self._weights.undeclared()
        if unused:
            listed = ", ".join(unused[:5])
            raise UnsupportedError(
                f"{self._source.path}: tensors that the ONNX graph has no place for: {listed}",
                hint="convert it to GGUF: --to gguf",
            )
        return graph.serialized(version("edgeinfer"))

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
            if self._cache == "int8":
                self._graph = self._drawn(Cache("int8", self._scales()))
                yield from self._weights.write_given(self._file)
            self._describe()
            if self._verify is not None:
                self._file.flush()
                self._verification = self._verified(self._verify)
            self._file.close()
        self._folder.sync()

    def _verified(self, forward: Forward) -> Verification:
        """Compares what was written with the source."""

        def reference(tokens: Sequence[int]) -> NDArray[np.float32]:
            beside = self.path.with_name(f"{self.path.name}.gguf")
            with nameless(self._source, beside) as exact:
                return forward(exact, tokens)

        return check(
            self._folder.part / onnx_folder.GRAPH,
            self._file,
            name=self.path,
            source=self._source,
            weights=self._weights,
            cache=self._cache,
            reference=reference,
        )

    def _scales(self) -> CacheScales:
        """Lets the written layers read a text, to see how large keys and values are."""
        self._file.flush()
        return measured(
            self._file,
            self._config,
            self._weights,
            self._pieces,
            folder=self._folder.part,
            context=self._context,
            threads=self._threads,
        )

    def _describe(self) -> None:
        """Writes everything but the data."""
        folder, weights = self._folder.part, self._weights
        (folder / onnx_folder.GRAPH).write_bytes(self._graph)
        genai.write_config(folder, onnx_folder.GRAPH, self._config, self._context, self._ids)
        onnx_folder.OnnxFolder(
            path=folder,
            config=self._config,
            context=self._context,
            quant=self._quant,
            floats=weights.recipe.floats,
            cache=self._cache,
            matrices=weights.matrices(),
            files={onnx_folder.GRAPH: len(self._graph), data_file.NAME: weights.data.size},
            merges=_merges(self._source),
            metadata=_general(self._source),
        ).write(folder)

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
            verification=self._verification,
            notes=[
                f"{change} in {count} tensors keeps codes and scales, and rounds offsets to 8 bits"
                for change, count in weights.rounded.most_common()
            ],
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
    has = _beyond_export(source.config)
    if has is not None:
        raise UnsupportedError(
            f"{source.path}: {source.arch.name} has {has}, which cannot be exported to ONNX yet",
            hint="--to gguf keeps this model as it is",
        )
    if context is not None and context < 1:
        raise UsageError(f"context is {context}, it must be at least 1")
    positions = source.config.positions
    if context is not None and 0 < positions < context:
        raise UsageError(f"context is {context}, the model has {positions} positions")
    tokens = context or min(source.config.context, MOST_CONTEXT)
    return source.numbers.model_config(source.arch, tokens), tokens


def _beyond_export(config: ModelConfig) -> str | None:
    """What a model has that the graph does not, the plainest thing first."""
    if not config.causal:
        return "no words to write, only states of texts read as a whole"
    if config.is_recurrent:
        return "layers with a running state"
    if config.experts:
        return "experts"
    return beyond_the_graph(config)


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
