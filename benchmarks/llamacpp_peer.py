"""llama.cpp by its C API, so that nothing but its own work is on its clock."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import llama_cpp
import numpy as np
from llama_cpp._ggml import libggml
from numpy.typing import NDArray

Array = NDArray[np.float32]

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


def quantize(values: Array, ggml_type: int, row_bytes: int) -> NDArray[np.uint8]:
    """Encodes (rows, cols) with llama.cpp's own encoder into (rows, row_bytes)."""
    values = np.ascontiguousarray(values, dtype=np.float32)
    out = np.empty((values.shape[0], row_bytes), dtype=np.uint8)
    written = _quantize(
        ggml_type,
        values.ctypes.data,
        out.ctypes.data,
        0,
        values.shape[0],
        values.shape[1],
        None,
    )
    assert written == out.nbytes, (written, out.nbytes)
    return out


class LlamaCpp:
    """A model in llama.cpp with one sequence; every default but threads and context is its own."""

    def __init__(self, path: Path, *, context: int, batch: int, threads: int) -> None:
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
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        assert self._context
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(self._vocab)
        self._batch = llama_cpp.llama_batch_init(batch, 0, 1)
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
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        self._position = 0

    def step(self, tokens: Sequence[int], *, wants_logits: int = 1) -> Array:
        """Appends tokens; returns float32 logits (wants_logits, vocab) of the last ones."""
        batch = self._batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i] = token
            batch.pos[i] = self._position + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = i >= len(tokens) - wants_logits
        status = llama_cpp.llama_decode(self._context, batch)
        assert status == 0, status
        self._position += len(tokens)
        logits = llama_cpp.llama_get_logits(self._context)
        return np.ctypeslib.as_array(logits, shape=(wants_logits, self.vocab_size))

    def close(self) -> None:
        """Gives everything back."""
        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)
