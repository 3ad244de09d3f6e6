"""Our own engine: GGUF on the processor, through the native extension."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeinfer.arch import config_from_gguf, engine_tensors, gguf_architecture
from edgeinfer.arch.config import ModelConfig
from edgeinfer.backends.base import AdapterUse, Logits, ModelFiles, Slice, Support
from edgeinfer.backends.checks import require_causal
from edgeinfer.device.profile import DeviceProfile
from edgeinfer.errors import (
    ClosedError,
    ContextFullError,
    CorruptFileError,
    DoesNotFitError,
    UnsupportedError,
)
from edgeinfer.formats.gguf import GGUFFile, open_gguf
from edgeinfer.planner import costs, paces
from edgeinfer.planner.footprint import Footprint, Pace, Setting
from edgeinfer.planner.outline import Outline
from edgeinfer.planner.plan import MemoryPlan

if TYPE_CHECKING:
    from edgeinfer import _native

# (canonical name, file, quant type, offset of the first byte, rows, columns)
TensorSource = tuple[str, str, str, int, int, int]


class NativeBackend:
    """Loads GGUF files into the native engine."""

    name = "native"
    formats = frozenset({"gguf"})

    def version(self) -> str:
        """The instruction set, and the build of the extension."""
        from edgeinfer import _native

        built = Path(_native.__file__).stat()
        return f"{_native.isa()} ({built.st_size} {built.st_mtime_ns})"

    def probe(self, device: DeviceProfile) -> Support:
        """Runs wherever the extension does; it has scalar kernels for the rest."""
        return Support(usable=True, reason=device.isas[0] if device.isas else "", rank=100)

    def footprint(self, model: Outline, setting: Setting) -> Footprint:
        """As ``Predictor.footprint``."""
        return costs.footprint(model, setting)

    def pace(self, model: Outline) -> Pace:
        """As ``Predictor.pace``."""
        return paces.native_pace(model)

    def load(self, files: ModelFiles, plan: MemoryPlan) -> NativeEngine:
        """Packs the weights into memory.

        Raises:
            CorruptFileError: a tensor is missing, has the wrong shape, or leaves the file.
            UnsupportedError: the architecture or a quant type is not known.
            DoesNotFitError: the memory is gone in spite of the plan.
        """
        from edgeinfer import _native

        if plan.gpu_layers:
            raise UnsupportedError(
                "the native engine runs on the processor only",
                hint="--backend llamacpp can use a GPU, or leave -ngl out",
            )

        # A header with a vocabulary takes a while to read; the caller may have done so.
        with nullcontext(files.gguf) if files.gguf else open_gguf(files.path) as model:
            config = config_from_gguf(model, plan.context)
            sources = tensor_sources(model, config)
        try:
            engine = _native.Engine(
                plain_config(config),
                sources,
                context=plan.context,
                threads=plan.threads,
                batch_threads=plan.batch_threads or plan.threads,
                batch=plan.batch,
                kv_type_k=plan.kv_type_k,
                kv_type_v=plan.kv_type_v,
            )
        except ValueError as error:
            raise CorruptFileError(f"{files.path}: {error}") from error
        except MemoryError as error:
            raise DoesNotFitError(
                "the system refused the memory for the weights",
                need_bytes=plan.total_bytes,
                have_bytes=plan.budget_bytes,
                suggest="close other programs, or use a smaller quantisation",
            ) from error
        return NativeEngine(engine, config, plan.kv_types)


class NativeEngine:
    """``base.Engine`` over ``_native.Engine``: plain numbers in, errors translated."""

    batch_invariant: Literal[True] = True

    def __init__(self, engine: _native.Engine, config: ModelConfig, kv_types: str) -> None:
        self.config = config
        self._engine = engine
        self._kv_types = kv_types

    def open(self) -> int:
        """As ``Engine.open``."""
        with _translated():
            return self._engine.open()

    def step(self, batch: Sequence[Slice]) -> Logits:
        """As ``Engine.step``.

        Raises:
            UnsupportedError: besides, the model reads texts as a whole and has no logits.
        """
        require_causal(self.config)
        with _translated():
            return self._engine.step(_plain(batch))

    def embed(self, batch: Sequence[Slice]) -> NDArray[np.float32]:
        """As ``Embedder.embed``."""
        with _translated():
            return self._engine.embed(_plain(batch))

    @property
    def state_form(self) -> str:
        """As ``StateKeeper.state_form``; the order of the lanes in a block is the kernels' own."""
        from importlib.metadata import version

        from edgeinfer import _native

        return f"native {version('edgeinfer')} {_native.isa()} {self._kv_types}"

    def record(self, batch: Sequence[Slice]) -> Mapping[str, NDArray[np.float32]]:
        """As ``Calibratable.record``."""
        with _translated():
            return self._engine.record(_plain(batch))

    def replace(self, tensor: str, data: NDArray[np.uint8]) -> None:
        """As ``Calibratable.replace``."""
        with _translated():
            self._engine.replace(tensor, data)

    def save_state(self, sequence: int) -> memoryview:
        """As ``StateKeeper.save_state``."""
        with _translated():
            return self._engine.state(sequence).data

    def restore_state(self, sequence: int, state: bytes | memoryview, length: int) -> None:
        """As ``StateKeeper.restore_state``."""
        with _translated():
            self._engine.restore(sequence, np.frombuffer(state, np.uint8), length)

    def add_adapter(self, path: Path) -> int:
        """As ``Adaptable.add_adapter``."""
        from edgeinfer.backends.adapters import changes_of

        changes = ((name, change.a, change.b) for name, change in changes_of(path, self.config))
        with _translated():
            return self._engine.add_adapter(changes)

    def remove_adapter(self, adapter: int) -> None:
        """As ``Adaptable.remove_adapter``."""
        with _translated():
            self._engine.remove_adapter(adapter)

    def set_adapters(self, sequence: int, adapters: Sequence[AdapterUse]) -> None:
        """As ``Adaptable.set_adapters``."""
        with _translated():
            self._engine.set_adapters(sequence, list(adapters))

    def trim(self, sequence: int, length: int) -> int:
        """As ``Engine.trim``."""
        with _translated():
            return self._engine.trim(sequence, length)

    def close(self, sequence: int) -> None:
        """As ``Engine.close``."""
        with _translated():
            self._engine.close(sequence)

    def shutdown(self) -> None:
        """As ``Engine.shutdown``."""
        self._engine.shutdown()

    def memory(self) -> dict[str, int]:
        """Resident bytes at the peak: weights, kv of one full sequence, scratch."""
        return self._engine.memory()


@contextmanager
def _translated() -> Iterator[None]:
    from edgeinfer import _native

    try:
        yield
    except _native.ContextFull as error:
        raise ContextFullError(str(error)) from error
    except _native.Closed as error:
        raise ClosedError(str(error)) from error


def _plain(batch: Sequence[Slice]) -> list[tuple[int, NDArray[np.int32], int]]:
    return [(part.sequence, np.asarray(part.tokens, np.int32), part.wants_logits) for part in batch]


def plain_config(config: ModelConfig) -> dict[str, Any]:
    """The config as numbers, strings and lists, as the extension reads it."""
    plain = {
        name: value.value if isinstance(value, Enum) else value
        for name, value in asdict(config).items()
    }
    plain["rope_tables"] = [
        (np.array(table.inverse_frequencies, np.float32), table.magnitude)
        for table in config.rope_tables
    ]
    plain["layer_mixer"] = [mixer.value for mixer in config.layer_mixer]
    return plain


def tensor_sources(model: GGUFFile, config: ModelConfig) -> list[TensorSource]:
    """Where each tensor of the graph lies in the model's files; a vector is one row."""
    shapes = {name: info.shape for name, info in model.tensors.items()}
    sources: list[TensorSource] = []
    for part in engine_tensors(gguf_architecture(model.metadata), config, shapes):
        info = model.tensors[part.source]
        vector = len(info.shape) == 1
        row_bytes = info.nbytes // (info.shape[0] if vector else math.prod(info.shape[:-1]))
        rows, cols = (1, part.row_count) if vector else (part.row_count, info.shape[-1])
        offset = info.offset + part.row_start * row_bytes
        sources.append((part.name, str(info.path), info.type, offset, rows, cols))
    return sources
