"""Low-rank adapters in llama.cpp, where they belong to a model and are switched on in a context.

A context computes all that a call of llama_decode is given with the same adapters, so sequences
with different ones are decoded one after the other. After a switch llama.cpp plans its memory
anew, so that it pays to read much between two.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edgeinfer.arch.config import ModelConfig
from edgeinfer.backends.adapters import changes_of
from edgeinfer.backends.base import AdapterUse
from edgeinfer.backends.llamacpp_batch import Place, Uses
from edgeinfer.errors import UnsupportedError


class Adapters:
    """The adapters of a llama_model; they are freed with it, or when the last user is gone."""

    def __init__(self, api: Any, model: Any, said: Callable[[], str]) -> None:
        self._api = api
        self._model = model
        self._said = said  # what llama.cpp complained of
        self._by_number: dict[int, int] = {}  # -> the address of a llama_adapter_lora
        self._removed: set[int] = set()  # addresses
        self._added = 0

    def add(self, path: Path, config: ModelConfig) -> int:
        """As ``Adaptable.add_adapter``."""
        for _ in changes_of(path, config):  # llama.cpp looks at less
            pass
        made = self._api.llama_adapter_lora_init(self._model, os.fsencode(path))
        if not made:
            raise UnsupportedError(
                f"{path}: llama.cpp does not take the adapter{self._said()}",
                hint="--backend native may",
            )
        self._added += 1
        self._by_number[self._added] = ctypes.cast(made, ctypes.c_void_p).value or 0
        return self._added

    def remove(self, number: int) -> None:
        """As ``Adaptable.remove_adapter``; ``free`` gives its memory back."""
        address = self._by_number.pop(number, None)
        if address is not None:
            self._removed.add(address)

    def uses(self, adapters: Sequence[AdapterUse]) -> Uses:
        """Looks adapters up; one that is named twice is felt as much as both together.

        Raises:
            ValueError: one is not there.
        """
        scales: dict[int, float] = {}
        for number, scale in adapters:
            address = self._by_number.get(number)
            if address is None:
                raise ValueError(f"adapter {number} is not there")
            scales[address] = scales.get(address, 0.0) + scale
        return tuple(sorted((address, scale) for address, scale in scales.items() if scale))

    def switch(self, context: Any, uses: Uses) -> None:
        """Lets a context compute with these adapters, and with no others."""
        count = len(uses)
        kind = self._api.llama_adapter_lora_p_ctypes  # a pointer that ctypes knows no target of
        addresses = (ctypes.c_void_p * count)(*(address for address, _ in uses))
        scales = (ctypes.c_float * count)(*(scale for _, scale in uses))
        self._api.llama_set_adapters_lora(
            context, ctypes.cast(addresses, ctypes.POINTER(kind)), count, scales
        )

    def free(self, context: Any, places: Iterable[Place]) -> None:
        """Gives those back that were removed and that no sequence uses any more."""
        unused = self._removed.difference(address for p in places for address, _ in p.uses)
        if unused:
            self.switch(context, ())  # it may have computed with them last
        for address in unused:
            kind = self._api.llama_adapter_lora_p_ctypes
            self._api.llama_adapter_lora_free(ctypes.cast(address, kind))
        self._removed -= unused


def by_adapters(places: Sequence[Place]) -> Iterator[tuple[Uses, list[int]]]:
    """Yields adapters, and which of the sequences are computed with them."""
    found: dict[Uses, list[int]] = {}
    for index, place in enumerate(places):
        found.setdefault(place.uses, []).append(index)
    yield from found.items()
