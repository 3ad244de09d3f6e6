"""Models that read texts as a whole, in llama.cpp: nothing is kept between steps.

Each text of a call is a sequence of llama.cpp's for that call alone, and must be whole in a
micro-batch, which is as large as the plan's batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeinfer.backends.base import Logits, Slice
from edgeinfer.backends.checks import require_causal
from edgeinfer.backends.groups import groups
from edgeinfer.backends.llamacpp import LlamaCppEngine
from edgeinfer.backends.llamacpp_adapters import by_adapters
from edgeinfer.backends.llamacpp_batch import Place, table
from edgeinfer.errors import ContextFullError

MOST_TEXTS = 64  # in a call of llama.cpp


class LlamaCppEncoder(LlamaCppEngine):
    """``base.Engine`` and ``base.Embedder`` over a llama_context without memory."""

    def open(self) -> int:
        """As ``Engine.open``."""
        with self._lock:
            self._live()
            self._opened += 1
            self._places[self._opened] = Place(0)
            return self._opened

    def step(self, batch: Sequence[Slice]) -> Logits:
        """Refuses: there are no logits.

        Raises:
            UnsupportedError: always.
        """
        require_causal(self.config)
        return super().step(batch)

    def embed(self, batch: Sequence[Slice]) -> NDArray[np.float32]:
        """As ``Embedder.embed``, each slice a text of its own."""
        api, width = self._api, self.config.width
        with self._lock:
            places = self._check(batch)
            lengths = [len(part.tokens) for part in batch]
            longest = max(lengths, default=0)
            if longest > self._plan.batch:
                raise ContextFullError(
                    f"a text of {longest} tokens: at most {self._plan.batch} are read in one step"
                )
            found: dict[int, NDArray[np.float32]] = {}
            for uses, which in by_adapters(places):
                self._adapters.switch(self._context, uses)
                sizes = [lengths[i] for i in which]
                for part in groups(sizes, most_tokens=self._plan.batch, most_texts=self._slots):
                    texts = which[part]
                    work = table([batch[i] for i in texts], [Place(n) for n in range(len(texts))])
                    self._decode(work)
                    rows = np.ctypeslib.as_array(
                        api.llama_get_embeddings(self._context), (work.shape[1], width)
                    )
                    ends = np.cumsum([lengths[i] for i in texts])
                    for i, end in zip(texts, ends, strict=True):
                        found[i] = rows[end - batch[i].wants_logits : end].copy()
            return np.concatenate(
                [np.empty((0, width), np.float32), *(found[i] for i in range(len(batch)))]
            )

    def trim(self, sequence: int, length: int) -> int:
        """As ``Engine.trim``: a sequence has no tokens after a step."""
        with self._lock:
            self._place(sequence)
            if length != 0:
                raise ValueError(f"cannot trim a sequence of 0 tokens to {length}")
        return 0

    def close(self, sequence: int) -> None:
        """As ``Engine.close``."""
        with self._lock:
            self._place(sequence)
            del self._places[sequence]
            self._adapters.free(self._context, self._places.values())

    def _resize(self, slots: int) -> None:
        """Makes the one context, for so many texts as a call may have."""
        # More texts than tokens of a call end the process.
        self._slots = min(MOST_TEXTS, self._plan.batch)
        options = self._options(self._slots)
        options.n_ctx = max(self._plan.batch, self._plan.context)
        options.n_outputs_max = self._plan.batch
        options.embeddings = True
        self._context, self._free_context = self._made_context(options, self._slots)
