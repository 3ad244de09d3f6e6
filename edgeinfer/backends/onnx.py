"""ONNX Runtime as a backend: folders that ``edgeinfer convert --to onnx`` exported.

Keys and values of a sequence are buffers of ours for the whole context, bound as input and as
output: the graph appends to them in place. What it may see of them the attention mask says, so
that trimming a sequence only sets a number.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeinfer.backends.base import Logits, ModelFiles, Slice, Support
from edgeinfer.backends.checks import check_batch, check_trim
from edgeinfer.backends.onnx_graph import check_graph
from edgeinfer.backends.onnx_prepacked import prepacked
from edgeinfer.backends.onnx_providers import PROCESSOR, available, started, wanted
from edgeinfer.backends.onnx_providers import session as on_provider
from edgeinfer.device.detect import detect
from edgeinfer.device.profile import DeviceProfile
from edgeinfer.errors import (
    ClosedError,
    CorruptFileError,
    DoesNotFitError,
    EdgeInferError,
    UnsupportedError,
)
from edgeinfer.formats import onnx_folder
from edgeinfer.formats.onnx_folder import OnnxFolder
from edgeinfer.formats.onnx_library import INSTALL, MODULE, onnxruntime
from edgeinfer.planner import onnxruntime as memory
from edgeinfer.planner.footprint import Footprint, Pace, Setting
from edgeinfer.planner.outline import Outline
from edgeinfer.planner.plan import MemoryPlan

# Set to 1, it keeps matrices on disk as the kernels read them, and maps them.
PREPACKED = "EDGEINFER_ONNX_PREPACKED"
_SILENT = 3  # errors only: it warns of the rows of logits, whose number varies
Number: TypeAlias = "type[np.floating[Any] | np.signedinteger[Any]]"
_PAST = "past_key_values."
_TYPES: dict[str, Number] = {"f32": np.float32, "f16": np.float16, "int8": np.int8}


class OnnxBackend:
    """Loads exported folders into ONNX Runtime, on the processor."""

    name = "onnx"
    formats = frozenset({"onnx"})

    def version(self) -> str:
        """The version of onnxruntime, or "" where it is not installed."""
        found = packages_distributions().get(MODULE, [])
        return version(found[0]) if found else ""

    def probe(self, device: DeviceProfile) -> Support:
        """Loads the library, and starts each provider it was built with."""
        found = self.version()
        if not found:
            return Support(usable=False, reason=f"{MODULE} is not installed ({INSTALL})")
        try:
            library = onnxruntime()
        except UnsupportedError as error:
            return Support(usable=False, reason=error.message)
        problems = started(library, available(library))
        able = [provider for provider, problem in problems.items() if not problem]
        if PROCESSOR not in able:
            why = problems.get(PROCESSOR, "it is not built in")
            return Support(usable=False, reason=f"{MODULE} {found} has no {PROCESSOR}: {why}")
        failed = "".join(f"; {name}: {why}" for name, why in problems.items() if why)
        return Support(usable=True, reason=f"{MODULE} {found}, {', '.join(able)}{failed}", rank=40)

    def footprint(self, model: Outline, setting: Setting) -> Footprint:
        """As ``Predictor.footprint``."""
        return memory.footprint(model, setting)

    def pace(self, model: Outline) -> Pace:
        """As ``Predictor.pace``."""
        return memory.pace(model)

    def load(self, files: ModelFiles, plan: MemoryPlan) -> OnnxEngine:
        """Makes a session.

        Raises:
            UnsupportedError: onnxruntime is missing or too old, the folder is not of our
                exporter, or the plan wants a GPU or another cache than the graph has.
            CorruptFileError: a file of the folder is missing, cut short or damaged.
            DoesNotFitError: the memory is gone in spite of the plan.
        """
        library = onnxruntime()
        folder = onnx_folder.read(files.path)
        if plan.gpu_layers:
            raise UnsupportedError(
                "the backend 'onnx' runs on the processor only", hint="leave -ngl out"
            )
        if {plan.kv_type_k, plan.kv_type_v} != {folder.cache}:
            raise UnsupportedError(
                f"the graph in {files.path} has a {folder.cache} cache, not {plan.kv_types}",
                hint="leave -ctk and -ctv out, or export it anew with --cache-type",
            )
        if plan.context > folder.context:
            raise UnsupportedError(
                f"{files.path} was exported for {folder.context} tokens, not {plan.context}",
                hint="use a shorter context (-c), or export it for a longer one",
            )
        return OnnxEngine(_session(library, folder, plan), folder, plan)


def _session(library: Any, folder: OnnxFolder, plan: MemoryPlan) -> Any:
    def make(graph: Path, options: Any) -> Any:
        options.log_severity_level = _SILENT
        options.intra_op_num_threads = plan.threads
        options.inter_op_num_threads = 1
        return on_provider(library, str(graph), options, provider)

    provider = wanted(library)
    graph = folder.path / onnx_folder.GRAPH
    try:
        if os.environ.get(PREPACKED, "") not in ("", "0"):
            graph = prepacked(library, folder, _processor(), make)
        session = make(graph, library.SessionOptions())
    except MemoryError as error:
        raise DoesNotFitError(
            "the system refused ONNX Runtime the memory",
            need_bytes=plan.total_bytes,
            have_bytes=plan.budget_bytes,
            suggest="close other programs, or use a smaller quantisation",
        ) from error
    except EdgeInferError:
        raise
    except Exception as error:  # its errors have no class in common
        if provider != PROCESSOR:
            raise UnsupportedError(
                f"{folder.path}: {provider} cannot compute all of it: {error}",
                hint="leave the environment variable EDGEINFER_ONNX_PROVIDER out",
            ) from error
        raise CorruptFileError(
            f"{folder.path}: ONNX Runtime {library.__version__} does not load it: {error}",
            hint="export the model again, or pip install -U onnxruntime",
        ) from error
    check_graph(session, folder)
    return session


def _processor() -> str:
    device = detect()
    return f"{device.machine} {device.cpu} {' '.join(device.isas)}"


class _Binding:
    """What a sequence's steps read and write, for one output of the graph.

    A step of one token finds everything bound but the mask: between steps, weights have driven
    the interpreter out of the processor's caches, where each call takes many times as long.
    """

    def __init__(
        self, session: Any, caches: Mapping[str, NDArray[Any]], output: str, row: NDArray[Any]
    ) -> None:
        self._output, self._row = output, row
        self._token, self._one = np.zeros((1, 1), np.int64), np.ones(1, np.int64)
        self._is_token = False  # whether a step of one token is bound
        self._bound = session.io_binding()
        self._bound.bind_output(output, "cpu")  # first, so that its place is known
        for name, cache in caches.items():
            place = _place(cache)
            self._bound.bind_input(name, *place)
            self._bound.bind_output(name.replace(_PAST, "present."), *place)

    def run(
        self,
        session: Any,
        options: Any,
        tokens: Sequence[int],
        seen: NDArray[np.int64],
        wanted: int,
    ) -> NDArray[Any]:
        """Computes the output of the last tokens, (1, wanted, width), of one row at least.

        Args:
            session: what to run.
            options: how.
            tokens: that are appended.
            seen: the mask, (1, tokens before and these).
            wanted: rows. A single one is overwritten by the next step.
        """
        bound = self._bound
        if len(tokens) == 1:
            if not self._is_token:
                self._bind(self._token, self._one)
            self._token[0, 0] = tokens[0]
            self._is_token = True
        else:
            self._is_token = False
            # These two are read when it runs.
            given, rows = np.array([tokens], np.int64), np.array([max(wanted, 1)], np.int64)
            self._bind(given, rows)
        bound.bind_input("attention_mask", *_place(seen))
        session.run_with_iobinding(bound, options)
        made: NDArray[Any] = self._row if wanted <= 1 else bound.get_outputs()[0].numpy()
        return made

    def _bind(self, tokens: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        self._bound.bind_input("input_ids", *_place(tokens))
        self._bound.bind_input("num_logits", *_place(rows))
        if rows[0] > 1:  # bound anew, or the last step's would be taken again
            self._bound.bind_output(self._output, "cpu")
        else:  # the graph declares one row, which can go where we want it
            self._bound.bind_output(self._output, *_place(self._row))


def _place(array: NDArray[Any]) -> tuple[Any, ...]:
    return "cpu", 0, array.dtype.type, array.shape, array.ctypes.data


class _Sequence:
    """Keys and values of a sequence, bound to a session; the system gives pages as they fill."""

    def __init__(self, session: Any, shape: tuple[int, ...], kind: Number) -> None:
        self.length = 0
        self._session = session
        self._caches: dict[str, NDArray[Any]] = {
            value.name: np.zeros(shape, kind)
            for value in session.get_inputs()
            if value.name.startswith(_PAST)
        }
        self._bindings: dict[str, _Binding] = {}

    def binding(self, output: str, width: int, floats: Number) -> _Binding:
        """Returns what is bound for steps that give an output, whose rows are so wide."""
        if output not in self._bindings:
            row = np.empty((1, 1, width), floats)
            self._bindings[output] = _Binding(self._session, self._caches, output, row)
        return self._bindings[output]


class OnnxEngine:
    """``base.Engine`` over an InferenceSession."""

    def __init__(self, session: Any, folder: OnnxFolder, plan: MemoryPlan) -> None:
        self.config = folder.config
        self.provider: str = session.get_providers()[0]
        self._session = session
        self._context, self._batch = plan.context, plan.batch
        self._cache, self._floats = _TYPES[folder.cache], _TYPES[folder.floats]
        self._lock = threading.Lock()
        self._sequences: dict[int, _Sequence] = {}
        self._opened = 0
        self._seen = np.ones((1, plan.context), np.int64)  # the mask: all that was read
        self._options = onnxruntime().RunOptions()
        self._options.log_severity_level = _SILENT

    def open(self) -> int:
        """As ``Engine.open``."""
        with self._lock:
            session = self._live()
            config = self.config
            shape = (1, config.kv_heads, self._context, config.head_dim)
            self._opened += 1
            self._sequences[self._opened] = _Sequence(session, shape, self._cache)
            return self._opened

    def step(self, batch: Sequence[Slice]) -> Logits:
        """As ``Engine.step``."""
        return self._run(batch, "logits", self.config.vocab_size)

    def embed(self, batch: Sequence[Slice]) -> NDArray[np.float32]:
        """As ``Embedder.embed``."""
        return self._run(batch, "hidden_states", self.config.width)

    def trim(self, sequence: int, length: int) -> int:
        """As ``Engine.trim``."""
        with self._lock:
            found = self._sequence(sequence)
            check_trim(found.length, length)
            found.length = length
            return length

    def close(self, sequence: int) -> None:
        """As ``Engine.close``."""
        with self._lock:
            self._sequence(sequence)
            del self._sequences[sequence]

    def shutdown(self) -> None:
        """As ``Engine.shutdown``."""
        with self._lock:
            self._sequences.clear()
            self._session = None

    # ---- inside --------------------------------------------------------------------------

    def _live(self) -> Any:
        if self._session is None:
            raise ClosedError("the engine is closed")
        return self._session

    def _sequence(self, number: int) -> _Sequence:
        self._live()
        if number not in self._sequences:
            raise ClosedError(f"sequence {number} is not open")
        return self._sequences[number]

    def _run(self, batch: Sequence[Slice], output: str, width: int) -> NDArray[np.float32]:
        with self._lock:
            self._live()
            lengths = [self._sequence(part.sequence).length for part in batch]
            check_batch(batch, lengths, vocabulary=self.config.vocab_size, context=self._context)
            rows = [self._read(part, output, width) for part in batch]
            for part in batch:
                self._sequences[part.sequence].length += len(part.tokens)
            return _joined(rows, width)

    def _read(self, part: Slice, output: str, width: int) -> NDArray[np.float32]:
        """Appends a slice's tokens to its buffers, in pieces; its length stays what it was."""
        sequence, count = self._sequences[part.sequence], len(part.tokens)
        binding = sequence.binding(output, width, self._floats)
        rows = []
        for at in range(0, count, self._batch):
            tokens = part.tokens[at : at + self._batch]
            unwanted = max(count - part.wants_logits - at, 0)  # before the first wanted one
            wanted = max(len(tokens) - unwanted, 0)
            seen = self._seen[:, : sequence.length + at + len(tokens)]
            try:
                made = binding.run(self._session, self._options, tokens, seen, wanted)
            except Exception as error:  # its errors have no class in common
                raise EdgeInferError(f"ONNX Runtime cannot compute a step: {error}") from error
            if wanted:
                rows.append(made[0].astype(np.float32, copy=wanted == 1))
        return _joined(rows, width)


def _joined(rows: Sequence[NDArray[np.float32]], width: int) -> NDArray[np.float32]:
    if len(rows) == 1:
        return rows[0]
    return np.concatenate(rows) if rows else np.empty((0, width), np.float32)
