"""Our own readings of a GGUF file: the float64 reference and the native engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeinfer.arch import ModelConfig, config_from_gguf, engine_tensors, gguf_architecture
from edgeinfer.formats.gguf import open_gguf
from support import reference
from support.plans import tiny_plan
from support.tiny import CONTEXT


def read_tensors(path: Path) -> tuple[ModelConfig, dict[str, NDArray[np.float32]]]:
    """Reads a model as the reference takes it: decoded by the ``gguf`` package."""
    import gguf

    with open_gguf(path) as model:
        config = config_from_gguf(model, CONTEXT)
        shapes = {name: info.shape for name, info in model.tensors.items()}
        parts = engine_tensors(gguf_architecture(model.metadata), config, shapes)
    decoded = {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        for tensor in gguf.GGUFReader(path).tensors
    }
    return config, {
        part.name: rows_of(decoded[part.source])[part.row_start : part.row_start + part.row_count]
        for part in parts
    }


def rows_of(tensor: NDArray[np.float32]) -> NDArray[np.float32]:
    """Stacked matrices, (experts, rows, columns), one below the other; others as they are."""
    return tensor.reshape(-1, tensor.shape[-1]) if tensor.ndim > 2 else tensor


def reference_logits(path: Path, tokens: Sequence[int]) -> NDArray[np.float64]:
    """Returns the logits of every token, in float64."""
    config, tensors = read_tensors(path)
    return reference.forward(config, tensors, tokens)


class OurEngine:
    """The native engine, by default with a float32 cache."""

    def __init__(
        self, path: Path, *, threads: int = 2, context: int = CONTEXT, kv_type: str = "f32"
    ) -> None:
        from edgeinfer.backends.base import ModelFiles, Slice
        from edgeinfer.backends.native import NativeBackend

        plan = tiny_plan(
            "native",
            context=context,
            threads=threads,
            batch=context,
            kv_type_k=kv_type,
            kv_type_v=kv_type,
            budget_bytes=1 << 30,
        )
        self._slice = Slice
        self.engine = NativeBackend().load(ModelFiles(path=path, format="gguf"), plan)

    def logits(self, tokens: Sequence[int], *, step: int | None = None) -> NDArray[np.float32]:
        """Returns the logits of every token, run in pieces of ``step`` tokens."""
        sequence = self.engine.open()
        try:
            step = step or len(tokens)
            pieces = [list(tokens[i : i + step]) for i in range(0, len(tokens), step)]
            return np.concatenate(
                [self.engine.step([self._slice(sequence, p, len(p))]) for p in pieces]
            )
        finally:
            self.engine.close(sequence)

    def greedy(self, tokens: Sequence[int], count: int) -> list[int]:
        """Returns the likeliest next tokens, decoded one by one."""
        return [token for token, _ in self.greedy_steps(tokens, count)]

    def greedy_steps(self, tokens: Sequence[int], count: int) -> list[tuple[int, float]]:
        """Returns also how far ahead each was of the second, as part of the logits' range."""
        sequence = self.engine.open()
        found: list[tuple[int, float]] = []
        piece = list(tokens)
        for _ in range(count):
            logits = np.sort(row := self.engine.step([self._slice(sequence, piece, 1)])[-1])
            piece = [int(row.argmax())]
            found.append((piece[0], float((logits[-1] - logits[-2]) / (logits[-1] - logits[0]))))
        self.engine.close(sequence)
        return found

    def together(self, *texts: Sequence[int]) -> NDArray[np.float32]:
        """Returns the logits of every token of texts that run in one step."""
        sequences = [self.engine.open() for _ in texts]
        pairs = zip(sequences, texts, strict=True)
        logits = self.engine.step([self._slice(s, list(t), len(t)) for s, t in pairs])
        for sequence in sequences:
            self.engine.close(sequence)
        return np.asarray(logits)


@contextmanager
def our_engine(path: Path, **options: Any) -> Iterator[OurEngine]:
    """Opens a model in the native engine and gives its memory back afterwards."""
    engine = OurEngine(path, **options)
    try:
        yield engine
    finally:
        engine.engine.shutdown()
