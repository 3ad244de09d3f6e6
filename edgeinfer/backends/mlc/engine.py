"""``base.Engine`` over a compiled library."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeinfer.arch.config import ModelConfig
from edgeinfer.backends.base import Logits, Slice
from edgeinfer.backends.checks import check_batch, check_trim
from edgeinfer.backends.mlc import pages
from edgeinfer.backends.mlc.packing import aligned
from edgeinfer.backends.mlc.pages import PAGE, Pages
from edgeinfer.backends.mlc.runtime import Library, array, caller
from edgeinfer.errors import ClosedError, EdgeInferError
from edgeinfer.planner.plan import MemoryPlan

_MOST_TOKENS, _MOST_LOGITS = 512, 32  # of a call, as libraries are compiled
_WIDEST_TABLE = 8  # pages to begin with
Outputs = Callable[[NDArray[np.float32]], Iterator[NDArray[np.float32]]]  # of hidden states
_NUMPY = {"f32": "float32", "f16": "float16"}


class MlcEngine:
    """Sequences in pages of one cache; what a step computes is the library's."""

    def __init__(
        self,
        library: Library,
        config: ModelConfig,
        parameters: Sequence[NDArray[Any]],
        plan: MemoryPlan,
    ) -> None:
        self.config = config
        self.order: tuple[str, ...] = tuple(library.metadata["parameters"])  # of the parameters
        self._library: Library | None = library
        self._parameters = library.tuple(parameters)
        self._context, self._batch = plan.context, min(plan.batch, _MOST_TOKENS)
        self._lock = threading.Lock()
        self._sequences: dict[int, pages.Sequence] = {}
        self._opened = 0
        shape = (config.layers, 2, config.kv_heads, PAGE * config.head_dim)
        self._pages = Pages(shape, _NUMPY[plan.kv_type_k], -(-plan.context // PAGE))
        self._cache: Any = None
        self._threads = plan.threads

    def open(self) -> int:
        """As ``Engine.open``."""
        with self._lock:
            self._live()
            self._opened += 1
            self._sequences[self._opened] = pages.Sequence()
            return self._opened

    def step(self, batch: Sequence[Slice]) -> Logits:
        """As ``Engine.step``."""
        return self._run(batch, self._logits, self.config.vocab_size)

    def embed(self, batch: Sequence[Slice]) -> NDArray[np.float32]:
        """As ``Embedder.embed``."""
        return self._run(batch, lambda hidden: iter((hidden,)), self.config.width)

    def trim(self, sequence: int, length: int) -> int:
        """As ``Engine.trim``."""
        with self._lock:
            found = self._sequence(sequence)
            check_trim(found.length, length)
            found.cut(length, self._pages)
            return length

    def close(self, sequence: int) -> None:
        """As ``Engine.close``."""
        with self._lock:
            self._sequence(sequence).cut(0, self._pages)
            del self._sequences[sequence]

    def shutdown(self) -> None:
        """As ``Engine.shutdown``."""
        with self._lock:
            if self._library is None:
                return
            library, self._library = self._library, None
            self._sequences.clear()
            self._parameters = self._cache = None
            self._pages = Pages((0,), "float32", 1)
            caller().compute(self._threads, library.release)

    # ---- inside --------------------------------------------------------------------------

    def _live(self) -> Library:
        if self._library is None:
            raise ClosedError("the engine is closed")
        return self._library

    def _sequence(self, number: int) -> pages.Sequence:
        self._live()
        if number not in self._sequences:
            raise ClosedError(f"sequence {number} is not open")
        return self._sequences[number]

    def _run(
        self,
        batch: Sequence[Slice],
        outputs: Outputs,
        width: int,
    ) -> NDArray[np.float32]:
        with self._lock:
            self._live()
            lengths = [self._sequence(part.sequence).length for part in batch]
            check_batch(batch, lengths, vocabulary=self.config.vocab_size, context=self._context)
            made = np.empty((sum(part.wants_logits for part in batch), width), np.float32)
            try:
                caller().compute(self._threads, self._read, batch, outputs, made)
            except EdgeInferError:
                raise
            except MemoryError:
                raise
            except Exception as error:  # TVM's errors have no class in common
                raise EdgeInferError(f"TVM cannot compute a step: {error}") from error
            for part in batch:
                self._sequences[part.sequence].length += len(part.tokens)
            return made

    def _read(self, batch: Sequence[Slice], outputs: Outputs, made: NDArray[np.float32]) -> None:
        """Computes a step in pieces of tokens; lengths stay what they were."""
        if not batch:
            return
        held = [self._sequences[part.sequence] for part in batch]
        counts = [len(part.tokens) for part in batch]
        tokens = np.concatenate([np.asarray(part.tokens, np.int32) for part in batch])
        positions = np.concatenate(
            [
                np.arange(sequence.length, sequence.length + count, dtype=np.int32)
                for sequence, count in zip(held, counts, strict=True)
            ]
        )
        slots = np.concatenate(
            [
                sequence.grow(count, self._pages)
                for sequence, count in zip(held, counts, strict=True)
            ]
        )
        rows = np.repeat(np.arange(len(batch), dtype=np.int32), counts)
        wanted = np.concatenate(
            [
                np.arange(count) >= count - part.wants_logits
                for part, count in zip(batch, counts, strict=True)
            ]
        )
        tables = self._tables(held)
        done = 0
        for at in range(0, len(tokens), self._batch):
            piece = slice(at, at + self._batch)
            each = (tokens[piece], positions[piece], slots[piece], rows[piece])
            hidden = self._hidden(each, tables)
            for rows_made in outputs(hidden[wanted[piece]]):
                made[done : done + len(rows_made)] = rows_made
                done += len(rows_made)

    def _tables(self, held: Sequence[pages.Sequence]) -> NDArray[np.int32]:
        most = max(_WIDEST_TABLE, *(len(sequence.pages) for sequence in held))
        tables: NDArray[np.int32] = aligned((len(held), most), "int32")
        for row, sequence in zip(tables, held, strict=True):
            row[: len(sequence.pages)] = sequence.pages
        return tables

    def _hidden(
        self, each: tuple[NDArray[np.int32], ...], tables: NDArray[np.int32]
    ) -> NDArray[np.float32]:
        library = self._live()
        if self._cache is None or self._cache[0] is not self._pages.cache:  # it has grown
            self._cache = self._pages.cache, library.tensor(self._pages.cache)
        given = [library.tensor(_in_place(values)) for values in (*each, tables)]
        name = "hidden_of_one" if len(each[0]) == 1 else "hidden"
        return array(library.function(name)(*given, self._cache[1], self._parameters))

    def _logits(self, hidden: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        library = self._live()
        for at in range(0, len(hidden), _MOST_LOGITS):
            piece = _in_place(hidden[at : at + _MOST_LOGITS])
            name = "logits_of_one" if len(piece) == 1 else "logits"
            made = array(library.function(name)(library.tensor(piece), self._parameters))
            yield made[:, : self.config.vocab_size]


def _in_place(values: NDArray[Any]) -> NDArray[Any]:
    """Values where compiled code takes them."""
    made = aligned(values.shape, values.dtype.name)
    made[:] = values
    return made
