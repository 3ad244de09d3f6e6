"""PEFT adapters: read, written as GGUF, or merged into the weights that are converted.

A PEFT adapter is a folder with adapter_config.json and adapter_model.safetensors; its names are
those of the checkpoint it was trained on (https://huggingface.co/docs/peft).
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeinfer.arch import lora
from edgeinfer.arch.lora import LowRank
from edgeinfer.arch.tensors import checkpoint_names, file_shape, split_name, usual_name
from edgeinfer.arch.transforms import transform_of
from edgeinfer.errors import CorruptFileError, NotFoundError, UnsupportedError, UsageError
from edgeinfer.formats.adapter import A, B
from edgeinfer.formats.gguf_writer import GGUFWriter
from edgeinfer.formats.safetensors import Checkpoint, open_checkpoint
from edgeinfer.quant import get
from edgeinfer_converters.checkpoint import GgufSource, HuggingFaceSource, open_source
from edgeinfer_converters.json_files import read_json
from edgeinfer_converters.pipeline import (
    ConvertReport,
    Job,
    ProgressCallback,
    report,
    write_tensors,
)
from edgeinfer_converters.tensors import EncodedAnew, GivenTensor, Tensor, matrix_shape

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
UNSAFE_WEIGHTS = "adapter_model.bin"  # of older versions, a pickle
TYPES = ("f16", "f32")
_PREFIX = "base_model.model."
_NAME = re.compile(re.escape(_PREFIX) + r"(.+)\.lora_(A|B)(?:\.default)?\.weight")

# Settings of PEFT that change the mathematics, and the values that leave it as it is.
_PLAIN: Mapping[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "use_dora": (None, False),
    "bias": (None, "none"),
    "modules_to_save": (None, []),
    "trainable_token_indices": (None, [], {}),
    "layer_replication": (None, []),
    "lora_bias": (None, False),
    "alora_invocation_tokens": (None, []),
    "use_qalora": (None, False),
    "use_bdlora": (None,),
    "arrow_config": (None,),
    "kasa_config": (None,),
    "monteclora_config": (None,),
    # What these begin with leaves the weights as they were; others (PiSSA, OLoRA, LoftQ) do not.
    "init_lora_weights": (None, True, False, "gaussian", "eva", "orthogonal"),
}
_HINTS: Mapping[str, str] = {
    "init_lora_weights": "it changed the weights that it was trained on; PEFT's save_pretrained "
    "with path_initial_model_for_weight_conversion makes a plain adapter of it",
    "modules_to_save": "these are whole tensors: merge it with PEFT, and convert the result",
    "use_dora": "merge it with PEFT, and convert the result",
}

Source = HuggingFaceSource | GgufSource


@dataclass(frozen=True, slots=True, kw_only=True)
class PeftAdapter:
    """An adapter on the tensors of a model, under their GGUF names and in their order of rows.

    Attributes:
        alpha: of the configuration.
        changes: tensor -> its change, scaled.
    """

    alpha: float
    changes: dict[str, LowRank] = field(repr=False)


def convert_lora(
    base: str | os.PathLike[str],
    adapter: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    quant: str = "f16",
    threads: int | None = None,
    progress: ProgressCallback | None = None,
) -> ConvertReport:
    """Writes a PEFT adapter as GGUF.

    Args:
        base: the model it was trained on, a folder or a GGUF file; its weights are not read.
        adapter: the adapter's folder.
        output: the file to write; it appears when it is complete.
        quant: "f16" or "f32".
        threads: None for one a processor.
        progress: called after each block of rows.

    Raises:
        UsageError: another type.
        NotFoundError: a file does not exist.
        CorruptFileError: a file is damaged, or the adapter is of another model.
        UnsupportedError: the adapter does what is not known here; named.
    """
    start = time.perf_counter()
    if quant not in TYPES:
        raise UsageError(f"an adapter in {quant}", hint=f"-q {' or '.join(TYPES)}")
    target, folder = Path(output), Path(adapter)
    source = open_source(Path(base))
    try:
        read = read_peft(folder, source)
        architecture = source.arch.name
    finally:
        source.close()
    jobs = []
    for name, change in read.changes.items():
        rank = change.a.shape[0]
        # Readers multiply by alpha / rank; an alpha of 0 is none to them.
        b = change.b * np.float32(rank / read.alpha if read.alpha else 1.0)
        jobs += [Job(GivenTensor(name + A, change.a), get(quant))]
        jobs += [Job(GivenTensor(name + B, b), get(quant))]
    with GGUFWriter(target) as writer:
        writer.add_metadata("general.type", "adapter")
        writer.add_metadata("general.architecture", architecture)
        writer.add_metadata("general.name", folder.resolve().name)
        writer.add_metadata("adapter.type", "lora")
        writer.add_metadata("adapter.lora.alpha", read.alpha)
        write_tensors(writer, jobs, threads=threads or os.cpu_count() or 1, progress=progress)
    return report(
        source=folder,
        files=[folder / WEIGHTS],
        output=target,
        architecture=architecture,
        quant=quant,
        jobs=jobs,
        seconds=time.perf_counter() - start,
    )


def read_peft(folder: Path, source: Source) -> PeftAdapter:
    """Reads an adapter for a model.

    Raises:
        NotFoundError: a file does not exist.
        CorruptFileError: a file is damaged, or the adapter is of another model.
        UnsupportedError: the adapter does what is not known here; named.
    """
    if not (folder / CONFIG).is_file():
        missing = f"no {CONFIG} in it" if folder.is_dir() else "no folder"
        raise NotFoundError(
            f"{folder}: {missing}", hint=f"PEFT saves an adapter as {CONFIG} and {WEIGHTS}"
        )
    settings = read_json(folder / CONFIG)
    for key, plain in _PLAIN.items():
        if settings.get(key) not in plain:
            raise UnsupportedError(
                f"{folder}: an adapter with {key!r} {settings.get(key)!r}",
                hint=_HINTS.get(key, "plain LoRA is known, also with rsLoRA and patterns"),
            )
    ours: dict[str, list[str]] = {}
    for name, theirs in checkpoint_names(source.arch, source.config, {}).items():
        ours.setdefault(theirs, []).append(name)
    pickled = folder / UNSAFE_WEIGHTS
    use_pickled = pickled.exists() and not (folder / WEIGHTS).exists()  # which is refused
    with open_checkpoint(pickled if use_pickled else folder / WEIGHTS) as checkpoint:
        pairs = _pairs(checkpoint)
    changes = {}
    for module, (a, b) in sorted(pairs.items()):
        names = ours.get(usual_name(source.arch, f"{module}.weight"))
        if names is None:
            raise UnsupportedError(
                f"{folder}: an adapter of {module!r}, which {source.arch.name} lacks or which "
                "cannot be adapted",
                hint="is it for another model? single experts and parameters are not adapted",
            )
        b = np.float32(_scale(settings, module, a.shape[0])) * b
        for name in names:
            changes[name] = _change(source, module, name, a, b)
    if not changes:
        raise CorruptFileError(f"{folder}: an adapter that changes nothing")
    return PeftAdapter(alpha=float(settings.get("lora_alpha", 8)), changes=changes)


def _change(
    source: Source, module: str, name: str, a: NDArray[np.float32], b: NDArray[np.float32]
) -> LowRank:
    """A module's change as that of one of the tensors that are made of it."""
    kind = split_name(name)[1]
    if kind not in lora.ADAPTABLE:
        raise UnsupportedError(
            f"an adapter of {module!r}, which is not adapted here",
            hint="merge it with PEFT, and convert the result",
        )
    transform = transform_of(source.arch, kind)
    stored = transform.stored(source.config, file_shape(source.arch, source.config, name))
    # PEFT has A and B the usual way round, also of a matrix that the checkpoint has transposed.
    expected = stored[::-1] if transform.transposed else stored
    if (b.shape[0], a.shape[1]) != expected:
        raise CorruptFileError(
            f"the adapter's {module!r} has shape {(b.shape[0], a.shape[1])}, "
            f"the model's {expected}",
            hint=lora.OTHER_MODEL,
        )
    rows = transform.row_order(source.config, b.shape[0])
    columns = transform.column_order(source.config, a.shape[1])
    change = LowRank(
        a=a if columns is None else np.ascontiguousarray(a[:, columns]),
        b=b if rows is None else b[rows],
    )
    lora.check(source.arch, source.config, name, change.shape)
    return change


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedTensor(EncodedAnew):
    """A tensor with an adapter's change added."""

    tensor: Tensor
    change: LowRank

    @property
    def name(self) -> str:
        """As the tensor's."""
        return self.tensor.name

    @property
    def shape(self) -> tuple[int, ...]:
        """As the tensor's."""
        return self.tensor.shape

    @property
    def exact_type(self) -> str:
        """That of the sum."""
        return "f32"

    def read(self, first: int, last: int) -> NDArray[np.float32]:
        """Returns rows of W + B A."""
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused later
            sums: NDArray[np.float32] = self.tensor.read(first, last) + (
                self.change.b[first:last] @ self.change.a
            )
        return sums


def merged(tensors: Sequence[Tensor], adapter: PeftAdapter) -> list[Tensor]:
    """Adds an adapter's changes to the tensors that it changes."""
    result: list[Tensor] = []
    for tensor in tensors:
        change = adapter.changes.get(tensor.name)
        if change is not None and matrix_shape(tensor) != change.shape:
            raise CorruptFileError(
                f"the adapter's {tensor.name!r} has shape {change.shape}, "
                f"the model's {matrix_shape(tensor)}"
            )
        result.append(tensor if change is None else MergedTensor(tensor=tensor, change=change))
    missing = adapter.changes.keys() - {tensor.name for tensor in tensors}
    if missing:
        raise UnsupportedError(
            f"an adapter of tensors that the model has in others: {', '.join(sorted(missing)[:3])}"
        )
    return result


def _pairs(checkpoint: Checkpoint) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Finds A (rank, columns) and B (rows, rank) of each module."""
    parts: dict[str, dict[str, NDArray[np.float32]]] = {}
    for name in checkpoint.tensors:
        match = _NAME.fullmatch(name)
        if match is None:
            raise UnsupportedError(
                f"{checkpoint.path}: tensor {name!r}",
                hint="pairs of A and B of matrices in blocks are known; no biases, embeddings or "
                "magnitudes",
            )
        values = checkpoint.read_float32(name)
        if values.ndim != 2:
            raise UnsupportedError(
                f"{checkpoint.path}: tensor {name!r} has shape {values.shape}",
                hint="changes of matrices are known, not of convolutions",
            )
        if not values.size or not np.isfinite(values).all():
            raise CorruptFileError(f"{checkpoint.path}: tensor {name!r} is no matrix of numbers")
        parts.setdefault(match[1], {})[match[2]] = np.array(values)
    pairs = {}
    for module, found in parts.items():
        if found.keys() != {"A", "B"} or found["A"].shape[0] != found["B"].shape[1]:
            raise CorruptFileError(f"{checkpoint.path}: A and B of {module!r} do not match")
        pairs[module] = (found["A"], found["B"])
    return pairs


def _scale(settings: Mapping[str, Any], module: str, rank: int) -> float:
    """What B A is multiplied by: alpha / rank, or alpha / sqrt(rank) (rsLoRA, arXiv:2312.03732)."""
    expected = _of_module(settings.get("rank_pattern"), module, settings.get("r", rank))
    if expected != rank:
        raise CorruptFileError(
            f"{CONFIG}: {module!r} has rank {expected!r}, in {WEIGHTS} it has rank {rank}"
        )
    alpha = _of_module(settings.get("alpha_pattern"), module, settings.get("lora_alpha", 8))
    if not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise CorruptFileError(f"{CONFIG}: 'lora_alpha' is {alpha!r}")
    return float(alpha) / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _of_module(patterns: object, module: str, default: Any) -> Any:
    """The value of the first pattern that is the module's name or the end of it, as PEFT has it."""
    if not isinstance(patterns, Mapping | None):
        raise CorruptFileError(f"{CONFIG}: {patterns!r:.60} in place of patterns")
    for pattern, value in (patterns or {}).items():
        try:
            found = re.fullmatch(rf"(.*\.)?({pattern})", module)
        except re.error as error:
            raise CorruptFileError(f"{CONFIG}: pattern {pattern!r:.60}: {error}") from error
        if found:
            return value
    return default
