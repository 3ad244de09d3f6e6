"""llama.cpp by its C API, so that nothing but its own work is on its clock."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import llama_cpp
import numpy as np
from llama_cpp._ggml import libggml
from numpy.typing import NDArray

from edgeinfer.backends.base import Slice
from edgeinfer.formats.ggml_types import BY_NAME

Array = NDArray[np.float32]

_requires_importance = libggml.ggml_quantize_requires_imatrix
_requires_importance.restype = ctypes.c_bool
_requires_importance.argtypes = [ctypes.c_int]
_quantize = libggml.ggml_quantize_chunk
_quantize.restype = ctypes.c_size_t
_quantize.argtypes = [
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_int64,
    ctypes.c_int64,
    ctypes.c_int64,
    ctypes.c_void_p,
]


def quantize(
    values: Array, ggml_type: int, row_bytes: int, importance: Array | None = None
) -> NDArray[np.uint8]:
    """Encodes (rows, cols) with llama.cpp's own encoder into (rows, row_bytes).

    Types that it refuses to write without importances get equal ones.
    """
    values = np.ascontiguousarray(values, dtype=np.float32)
    if importance is None and _requires_importance(ggml_type):
        importance = np.ones(values.shape[1], dtype=np.float32)
    out = np.empty((values.shape[0], row_bytes), dtype=np.uint8)
    written = _quantize(
        ggml_type,
        values.ctypes.data,
        out.ctypes.data,
        0,
        values.shape[0],
        values.shape[1],
        None if importance is None else importance.ctypes.data,
    )
    assert written == out.nbytes, (written, out.nbytes)
    return out


class LlamaCpp:
    """A model in llama.cpp with one sequence; what is not given is its own default."""

    def __init__(
        self,
        path: Path,
        *,
        context: int,
        batch: int,
        threads: int,
        kv_types: tuple[str, str] = ("f16", "f16"),
        flash_attention: bool | None = None,
    ) -> None:
        # The callback must outlive every call, so it is kept on the class.
        if not hasattr(LlamaCpp, "_silence"):
            LlamaCpp._silence = llama_cpp.llama_log_callback(lambda *_: None)
            llama_cpp.llama_log_set(LlamaCpp._silence, None)
            llama_cpp.llama_backend_init()
        self._model = llama_cpp.llama_model_load_from_file(
            str(path).encode(), llama_cpp.llama_model_default_params()
        )
        assert self._model, path
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = context
        params.n_batch = params.n_ubatch = batch
        params.n_threads = params.n_threads_batch = threads
        params.type_k, params.type_v = (BY_NAME[name].id for name in kv_types)
        if flash_attention is not None:
            params.flash_attn_type = int(flash_attention)
        self.context = llama_cpp.llama_init_from_model(self._model, params)
        assert self.context
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(self._vocab)
        self._batch = llama_cpp.llama_batch_init(batch, 0, 1)
        view = np.ctypeslib.as_array
        self._tokens = view(self._batch.token, (batch,))
        self._positions = view(self._batch.pos, (batch,))
        self._wants = view(self._batch.logits, (batch,))
        for i in range(batch):
            self._batch.n_seq_id[i] = 1
            self._batch.seq_id[i][0] = 0
        self._position = 0

    def tokenize(self, text: str) -> list[int]:
        """Token ids of the text, without special tokens."""
        data = text.encode()
        ids = (llama_cpp.llama_token * len(data))()
        count = llama_cpp.llama_tokenize(self._vocab, data, len(data), ids, len(ids), False, False)
        assert count >= 0
        return list(ids[:count])

    def clear(self) -> None:
        """Forgets the sequence."""
        self.trim(0)

    def trim(self, length: int) -> None:
        """Forgets all but the first ``length`` tokens."""
        memory = llama_cpp.llama_get_memory(self.context)
        assert llama_cpp.llama_memory_seq_rm(memory, 0, length, -1)
        self._position = length

    def step(self, tokens: Sequence[int], *, wants_logits: int = 1) -> Array:
        """Appends tokens; returns float32 logits (wants_logits, vocab) of the last ones."""
        count = self._batch.n_tokens = len(tokens)
        self._tokens[:count] = tokens
        self._positions[:count] = np.arange(self._position, self._position + count)
        self._wants[:count] = np.arange(count) >= count - wants_logits
        status = llama_cpp.llama_decode(self.context, self._batch)
        assert status == 0, status
        self._position += count
        llama_cpp.llama_synchronize(self.context)
        if wants_logits == 0:
            return np.empty((0, self.vocab_size), np.float32)
        logits = llama_cpp.llama_get_logits(self.context)
        return np.ctypeslib.as_array(logits, shape=(wants_logits, self.vocab_size))

    def close(self) -> None:
        """Gives everything back."""
        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self._model)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """As much of a ModelConfig as a benchmark asks for."""

    vocab_size: int


class LlamaCppEngine:
    """``Engine`` over ``LlamaCpp``, so that one loop times both engines."""

    def __init__(self, peer: LlamaCpp) -> None:
        self.config = Vocabulary(peer.vocab_size)
        self._peer = peer

    def open(self) -> int:
        """The one sequence there is."""
        self._peer.clear()
        return 0

    def step(self, batch: Sequence[Slice]) -> Array:
        """As ``Engine.step``, of one slice."""
        (part,) = batch
        return self._peer.step(part.tokens, wants_logits=part.wants_logits)

    def trim(self, sequence: int, length: int) -> int:
        """As ``Engine.trim``."""
        self._peer.trim(length)
        return length

    def close(self, sequence: int) -> None:
        """Forgets the sequence."""
        self._peer.clear()

    def shutdown(self) -> None:
        """Gives everything back."""
        self._peer.close()
