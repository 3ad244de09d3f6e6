"""transformers and llama.cpp, asked for logits: the peers our engine is compared to."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeinfer.quant import QuantType
from support.tiny import CONTEXT

Logits = NDArray[np.float32]  # (tokens, vocab)


class Transformers:
    """A checkpoint in transformers, in float32."""

    def __init__(self, folder: Path, cls: str) -> None:
        import torch
        import transformers

        transformers.logging.set_verbosity_error()
        torch.set_num_threads(1)  # faster for models so small
        self.model, loading = getattr(transformers, cls).from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
        for what, names in loading.items():
            assert not names, f"{what}: {names}"

    def logits(self, tokens: Sequence[int]) -> Logits:
        """Returns the logits of every token."""
        import torch

        with torch.no_grad():
            result: Logits = self.model(torch.tensor([list(tokens)])).logits[0].numpy()
        return result

    def greedy(self, tokens: Sequence[int], count: int) -> list[int]:
        """Returns the likeliest next tokens, each from a whole new run."""
        text = list(tokens)
        for _ in range(count):
            text.append(int(self.logits(text)[-1].argmax()))
        return text[len(tokens) :]


class LlamaCpp:
    """A GGUF in llama.cpp, with a float32 cache."""

    def __init__(self, path: Path) -> None:
        import llama_cpp

        self.model: Any = llama_cpp.Llama(
            str(path),
            n_ctx=CONTEXT,
            n_batch=CONTEXT,
            n_threads=1,
            logits_all=True,
            type_k=llama_cpp.GGML_TYPE_F32,
            type_v=llama_cpp.GGML_TYPE_F32,
            # Below zero: as the file says. The binding's defaults would win over it.
            yarn_attn_factor=-1.0,
            yarn_beta_fast=-1.0,
            yarn_beta_slow=-1.0,
            verbose=False,
        )

    def logits(self, tokens: Sequence[int]) -> Logits:
        """Returns the logits of every token, run in one piece."""
        self.model.reset()
        self.model.eval(list(tokens))
        result: Logits = self.model.scores[: len(tokens)].copy()
        return result

    def greedy(self, tokens: Sequence[int], count: int) -> list[int]:
        """Returns the likeliest next tokens, decoded one by one."""
        self.model.reset()
        self.model.eval(list(tokens))
        found: list[int] = []
        for _ in range(count):
            found.append(int(self.model.scores[self.model.n_tokens - 1].argmax()))
            self.model.eval(found[-1:])
        return found


def quantize_by_llama_cpp(
    quant_type: QuantType, x: NDArray[np.float32], importance: NDArray[np.float32] | None = None
) -> NDArray[np.uint8]:
    """Encodes (rows, cols) with llama.cpp's own encoder into (rows, row bytes)."""
    import llama_cpp

    library = Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"
    quantize = ctypes.CDLL(str(library)).ggml_quantize_chunk
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    quantize.argtypes = [ctypes.c_int, pointer, pointer, number, number, number, pointer]
    quantize.restype = ctypes.c_size_t
    rows, cols = x.shape
    x = np.ascontiguousarray(x, dtype=np.float32)
    data = np.empty((rows, quant_type.nbytes((cols,))), dtype=np.uint8)
    weights = None if importance is None else importance.ctypes.data
    written = quantize(quant_type.ggml_id, x.ctypes.data, data.ctypes.data, 0, rows, cols, weights)
    assert written == data.size
    return data
