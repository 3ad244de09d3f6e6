"""llama.cpp as a backend: GGUF through llama-cpp-python's low-level interface.

A context of llama.cpp has a fixed number of sequences and takes the memory of all of them
when it is made. So this one has as many as are open: opening or closing one makes a new
context and moves the others over, which costs a copy of their keys and values. A step
takes all sequences of a batch together.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeinfer.arch import config_from_gguf
from edgeinfer.arch.config import ModelConfig
from edgeinfer.backends import ggml_devices
from edgeinfer.backends.base import AdapterUse, Logits, ModelFiles, Slice, Support
from edgeinfer.backends.checks import check_batch
from edgeinfer.backends.llamacpp_adapters import Adapters, by_adapters
from edgeinfer.backends.llamacpp_batch import WANTED, Place, pieces, table
from edgeinfer.device.profile import DeviceProfile
from edgeinfer.device.resident import trim_heap
from edgeinfer.errors import (
    ClosedError,
    DoesNotFitError,
    EdgeInferError,
    UnsupportedError,
)
from edgeinfer.formats.gguf import open_gguf
from edgeinfer.formats.guard import Guard
from edgeinfer.planner import llamacpp as memory
from edgeinfer.planner import paces
from edgeinfer.planner.footprint import Footprint, Pace, Setting
from edgeinfer.planner.outline import Outline
from edgeinfer.planner.plan import MemoryPlan

PACKAGE = "llama-cpp-python"
MODULE = "llama_cpp"
INSTALL = "pip install 'edgeinfer[llamacpp]'"
MOST_SEQUENCES = 256  # LLAMA_MAX_SEQ
# Rows of logits that a call of llama_decode computes. It reserves memory for so many, and
# its default, one a token of the batch, is 256 MiB for 512 tokens of a vocabulary of 128K.
MOST_ROWS = memory.MOST_ROWS

_log = logging.getLogger(__name__)


class LlamaCppBackend:
    """Loads GGUF files into llama.cpp."""

    name = "llamacpp"
    formats = frozenset({"gguf"})

    def version(self) -> str:
        """The version of llama-cpp-python, or "" where it is not installed."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version(PACKAGE)
        except PackageNotFoundError:
            return ""

    def probe(self, device: DeviceProfile) -> Support:
        """Loads the library: one built for another processor shows it here."""
        if not self.version():
            return Support(usable=False, reason=f"{PACKAGE} is not installed ({INSTALL})")
        api = _library()
        used = "GPU offload" if api.llama_supports_gpu_offload() else "processor only"
        return Support(
            usable=True,
            reason=f"{PACKAGE} {self.version()}, {used}",
            rank=50,
            accelerators=ggml_devices.accelerators(import_module(f"{MODULE}._ggml").libggml),
        )

    def footprint(self, model: Outline, setting: Setting) -> Footprint:
        """As ``Predictor.footprint``."""
        return memory.footprint(model, setting)

    def pace(self, model: Outline) -> Pace:
        """As ``Predictor.pace``."""
        return paces.llamacpp_pace(model)

    def load(self, files: ModelFiles, plan: MemoryPlan) -> LlamaCppEngine:
        """Maps the weights and makes a context for one sequence.

        Raises:
            UnsupportedError: llama-cpp-python is missing, has no GPU though layers are to
                go there, or does not know the architecture or KV type.
            CorruptFileError: the header is damaged.
            DoesNotFitError: the memory is gone in spite of the plan.
        """
        try:
            api = _library()
        except ImportError as error:
            raise UnsupportedError(
                f"the backend 'llamacpp' needs {PACKAGE}: {error}", hint=INSTALL
            ) from error
        if plan.gpu_layers and not api.llama_supports_gpu_offload():
            raise UnsupportedError(
                f"this build of {PACKAGE} runs on the processor only",
                hint="install one that is built for your GPU, or leave -ngl out",
            )
        with nullcontext(files.gguf) if files.gguf else open_gguf(files.path) as model:
            config = config_from_gguf(model, plan.context)
            paths = {info.path for info in model.tensors.values()}
        # llama.cpp keeps the file mapped.
        guard = Guard(paths)
        try:
            engine = _class_for(config)(api, files, plan, config, guard)
            guard.check()
        except BaseException:
            guard.close()
            raise
        return engine


def _class_for(config: ModelConfig) -> type[LlamaCppEngine]:
    from edgeinfer.backends.llamacpp_encoder import LlamaCppEncoder

    return LlamaCppEngine if config.causal else LlamaCppEncoder


class LlamaCppEngine:
    """``base.Engine`` over a llama_model and its llama_context."""

    def __init__(
        self, api: Any, files: ModelFiles, plan: MemoryPlan, config: ModelConfig, guard: Guard
    ) -> None:
        self.config = config
        self._guard = guard
        weakref.finalize(self, guard.close)
        self._api = api
        self._plan = plan
        self._lock = threading.Lock()  # llama.cpp's objects are for one thread at a time
        self._places: dict[int, Place] = {}
        self._opened = 0
        options = api.llama_model_default_params()
        if plan.gpu_layers is not None:
            options.n_gpu_layers = plan.gpu_layers
        _heard.clear()
        self._model = _made(
            api.llama_model_load_from_file(os.fsencode(files.path), options),
            f"{files.path}: llama.cpp does not load it",
            plan,
        )
        # Freed in this order, also where nobody calls shutdown.
        self._free_model = weakref.finalize(self, api.llama_model_free, self._model)
        self._adapters = Adapters(api, self._model, _said)
        self._slots = 0
        self._context: Any = None
        self._free_context: Callable[[], Any] = lambda: None
        try:
            self._resize(1)
        except EdgeInferError:
            self._free_model()
            raise

    def open(self) -> int:
        """As ``Engine.open``.

        Raises:
            DoesNotFitError: the memory for one more sequence is gone.
            UnsupportedError: more sequences than llama.cpp can hold.
        """
        with self._lock:
            self._live()
            count = len(self._places) + 1
            if count > MOST_SEQUENCES:
                raise UnsupportedError(f"llama.cpp holds at most {MOST_SEQUENCES} sequences")
            if count > self._slots:
                self._resize(count)
            taken = {place.slot for place in self._places.values()}
            self._opened += 1
            self._places[self._opened] = Place(min(set(range(self._slots)) - taken))
            return self._opened

    def step(self, batch: Sequence[Slice]) -> Logits:
        """As ``Engine.step``."""
        with self._lock:
            places = self._check(batch)
            return self._run(batch, places, self.config.vocab_size, self._api.llama_get_logits)

    def embed(self, batch: Sequence[Slice]) -> NDArray[np.float32]:
        """As ``Embedder.embed``."""
        with self._lock:
            places = self._check(batch)
            rows_of = self._api.llama_get_embeddings
            self._api.llama_set_embeddings(self._context, True)
            try:
                return self._run(batch, places, self.config.width, rows_of, every_row=True)
            finally:
                self._api.llama_set_embeddings(self._context, False)

    @property
    def state_form(self) -> str:
        """As ``StateKeeper.state_form``."""
        return f"llamacpp {self._api.__version__} {self._plan.kv_types}"

    def save_state(self, sequence: int) -> memoryview:
        """As ``StateKeeper.save_state``."""
        with self._lock:
            return memoryview(self._state(self._place(sequence))).cast("B")

    def restore_state(self, sequence: int, state: bytes | memoryview, length: int) -> None:
        """As ``StateKeeper.restore_state``."""
        api = self._api
        with self._lock:
            place = self._place(sequence)
            data = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
            done = api.llama_state_seq_set_data(self._context, data, len(state), place.slot)
            memory = api.llama_get_memory(self._context)
            last = api.llama_memory_seq_pos_max(memory, place.slot)
            if done != len(state) or last + 1 != length or length > self._plan.context:
                self._cut(place, 0)
                raise ValueError(f"llama.cpp does not take the state{_said()}")
            place.length = length

    def add_adapter(self, path: Path) -> int:
        """As ``Adaptable.add_adapter``."""
        with self._lock:
            self._live()
            _heard.clear()
            return self._adapters.add(path, self.config)

    def remove_adapter(self, adapter: int) -> None:
        """As ``Adaptable.remove_adapter``."""
        with self._lock:
            self._live()
            self._adapters.remove(adapter)
            self._adapters.free(self._context, self._places.values())

    def set_adapters(self, sequence: int, adapters: Sequence[AdapterUse]) -> None:
        """As ``Adaptable.set_adapters``."""
        with self._lock:
            place = self._place(sequence)
            if place.length:
                raise ValueError(f"sequence {sequence} is not empty")
            place.uses = self._adapters.uses(adapters)
            self._adapters.free(self._context, self._places.values())

    def trim(self, sequence: int, length: int) -> int:
        """As ``Engine.trim``."""
        with self._lock:
            place = self._place(sequence)
            if not 0 <= length <= place.length:
                raise ValueError(f"cannot trim a sequence of {place.length} tokens to {length}")
            if length < place.length:
                self._cut(place, length)
            return place.length

    def close(self, sequence: int) -> None:
        """As ``Engine.close``."""
        with self._lock:
            place = self._place(sequence)
            self._cut(place, 0)
            del self._places[sequence]
            self._adapters.free(self._context, self._places.values())
            if self._slots > max(1, len(self._places)):
                self._resize(max(1, len(self._places)))
                trim_heap()

    def shutdown(self) -> None:
        """As ``Engine.shutdown``."""
        with self._lock:
            self._free_context()
            self._free_model()
            self._guard.close()
            self._context = None
            self._places.clear()
            trim_heap()

    # ---- inside --------------------------------------------------------------------------

    def _live(self) -> None:
        if self._context is None:
            raise ClosedError("the engine is closed")

    def _place(self, sequence: int) -> Place:
        self._live()
        if sequence not in self._places:
            raise ClosedError(f"sequence {sequence} is not open")
        return self._places[sequence]

    def _cut(self, place: Place, length: int) -> None:
        memory, remove = self._api.llama_get_memory(self._context), self._api.llama_memory_seq_rm
        # A running state cannot be cut: all is forgotten.
        kept = next((n for n in (length, 0) if remove(memory, place.slot, n, -1)), None)
        if kept is None:
            raise EdgeInferError(f"llama.cpp cannot trim a sequence to {length} tokens")
        place.length = kept

    def _resize(self, slots: int) -> None:
        """Makes a context for so many sequences, and moves the open ones into it."""
        made, free = self._made_context(self._options(slots), slots)
        places = list(self._places.values())
        try:
            for slot, place in enumerate(places):
                self._move(place, made, slot)
        except EdgeInferError:
            free()
            raise
        for slot, place in enumerate(places):
            place.slot = slot
        self._free_context()
        self._context, self._free_context, self._slots = made, free, slots

    def _options(self, slots: int) -> Any:
        """The parameters of a context for so many sequences."""
        api, plan = self._api, self._plan
        options = api.llama_context_default_params()
        options.n_ctx = plan.context * slots
        options.n_seq_max = slots
        options.kv_unified = True  # else no state of another number of sequences can be moved in
        options.n_batch = options.n_ubatch = plan.batch
        options.n_outputs_max = max(MOST_ROWS, slots)
        options.n_threads = plan.threads
        options.n_threads_batch = plan.batch_threads or plan.threads
        options.pooling_type = api.LLAMA_POOLING_TYPE_NONE  # embeddings a token
        options.type_k = _ggml_type(api, plan.kv_type_k)
        options.type_v = _ggml_type(api, plan.kv_type_v)
        if plan.kv_type_k == plan.kv_type_v == "f32":  # flash attention would round it to f16
            options.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        options.swa_full = True  # or a sliding window could not be trimmed
        return options

    def _made_context(self, options: Any, slots: int) -> tuple[Any, Callable[[], Any]]:
        """Makes a context, and what frees it."""
        api, plan = self._api, self._plan
        _heard.clear()
        made = _made(
            api.llama_init_from_model(self._model, options),
            f"llama.cpp makes no context of {plan.context} tokens for {slots} sequences",
            plan,
        )
        return made, weakref.finalize(self, api.llama_free, made)

    def _move(self, place: Place, target: Any, slot: int) -> None:
        """Copies a sequence's keys and values into another context."""
        if not place.length:
            return
        state = self._state(place)
        if not self._api.llama_state_seq_set_data(target, state, len(state), slot):
            raise EdgeInferError("llama.cpp cannot move a sequence to another context")

    def _state(self, place: Place) -> ctypes.Array[ctypes.c_uint8]:
        """A sequence's keys and values, in llama.cpp's own form."""
        api = self._api
        size: int = api.llama_state_seq_get_size(self._context, place.slot)
        state = (ctypes.c_uint8 * size)()
        api.llama_state_seq_get_data(self._context, state, len(state), place.slot)
        return state

    def _check(self, batch: Sequence[Slice]) -> list[Place]:
        """Finds all that can be wrong with a batch; returns where its sequences are."""
        places = [self._place(part.sequence) for part in batch]
        check_batch(
            batch,
            [place.length for place in places],
            vocabulary=self.config.vocab_size,
            context=self._plan.context,
        )
        return places

    def _run(
        self,
        batch: Sequence[Slice],
        places: Sequence[Place],
        width: int,
        rows_of: Callable[[Any], Any],
        *,
        every_row: bool = False,
    ) -> NDArray[np.float32]:
        """Decodes a checked batch in pieces; returns the wanted rows.

        ``every_row``: llama.cpp computes a row for each token, wanted or not.
        """
        ends = np.cumsum([0, *(part.wants_logits for part in batch)])
        out = np.empty((int(ends[-1]), width), np.float32)
        most = min(self._plan.batch, MOST_ROWS) if every_row else self._plan.batch
        try:
            for uses, which in by_adapters(places):
                self._adapters.switch(self._context, uses)
                order = np.concatenate([np.arange(ends[i], ends[i + 1]) for i in which])
                work = table([batch[i] for i in which], [places[i] for i in which])
                for piece in pieces(work, most, MOST_ROWS):
                    self._decode(piece)
                    wanted = piece[WANTED] != 0
                    made = len(wanted) if every_row else int(wanted.sum())
                    if made:
                        rows = np.ctypeslib.as_array(rows_of(self._context), (made, width))
                        rows = rows[wanted] if every_row else rows
                        out[order[: len(rows)]] = rows
                        order = order[len(rows) :]
        except EdgeInferError:
            for place in places:
                self._cut(place, place.length)
            raise
        for place, part in zip(places, batch, strict=True):
            place.length += len(part.tokens)
        return out

    def _decode(self, piece: NDArray[np.int32]) -> None:
        api, count = self._api, piece.shape[1]
        tokens, positions, slots = (np.ascontiguousarray(row) for row in piece[:WANTED])
        wanted, ones = piece[WANTED].astype(np.int8), np.ones(count, np.int32)
        # An array of pointers, each to the one sequence of its token.
        pointers = slots.ctypes.data + 4 * np.arange(count, dtype=np.uintp)
        batch = api.llama_batch(n_tokens=count)
        for name, array in (
            ("token", tokens),
            ("pos", positions),
            ("n_seq_id", ones),
            ("seq_id", pointers),
            ("logits", wanted),
        ):
            pointer = type(getattr(batch, name))
            setattr(batch, name, ctypes.cast(array.ctypes.data, pointer))
        _heard.clear()
        status = api.llama_decode(self._context, batch)
        self._guard.check()
        if status != 0:
            raise EdgeInferError(f"llama.cpp cannot compute a step ({status}){_said()}")


def _ggml_type(api: Any, name: str) -> int:
    """llama.cpp's number of a type, such as "q8_0"."""
    number: int | None = getattr(api, f"GGML_TYPE_{name.upper()}", None)
    if number is None:
        raise UnsupportedError(f"llama.cpp has no KV type {name!r}", hint="use f16")
    return number


# ---- the library -----------------------------------------------------------------------------

_heard: list[str] = []  # what llama.cpp complained of; the first says most
_callbacks: list[Any] = []  # must live as long as the library
_ERROR, _GO_ON = 4, 5  # of ggml_log_level


@cache
def _library() -> Any:
    """llama_cpp, with its log sent to ours."""
    api = import_module(MODULE)

    @api.llama_log_callback  # type: ignore[untyped-decorator]
    def hear(level: int, text: bytes, _data: object) -> None:
        line = text.decode(errors="replace").strip()
        if line and level != _GO_ON:
            _log.log(logging.INFO if level == _ERROR else logging.DEBUG, "%s", line)
            if level == _ERROR:
                _heard.append(line)

    api.llama_log_set(hear, None)
    _callbacks.append(hear)
    return api


def _said() -> str:
    return f": {_heard[0]}" if _heard else ""


def _made(pointer: Any, failure: str, plan: MemoryPlan) -> Any:
    """Returns what llama.cpp made, or raises what it complained of."""
    if pointer:
        return pointer
    if any("alloc" in line for line in _heard):
        raise DoesNotFitError(
            f"the system refused llama.cpp the memory{_said()}",
            need_bytes=plan.total_bytes,
            have_bytes=plan.budget_bytes,
            suggest="close other programs, or use a shorter context (-c)",
        )
    raise UnsupportedError(f"{failure}{_said()}", hint="--backend auto takes another")
