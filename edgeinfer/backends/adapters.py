"""What the backends with adapters have in common: an adapter's file, held against the model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from edgeinfer.arch import by_gguf_name
from edgeinfer.arch.config import ModelConfig
from edgeinfer.arch.lora import LowRank, graph_changes, require_family
from edgeinfer.backends.base import Adaptable, AdapterUse, Engine
from edgeinfer.errors import UnsupportedError
from edgeinfer.formats.adapter import open_adapter

HINT = "the backends native and llamacpp have"


def changes_of(path: str | os.PathLike[str], config: ModelConfig) -> Iterator[tuple[str, LowRank]]:
    """Reads what an adapter changes, matrix after matrix of the model's graph.

    Raises:
        NotFoundError: there is no such file.
        CorruptFileError: it is damaged, no adapter, or of a model of another shape.
        UnsupportedError: it is for another family, or changes what cannot be changed.
    """
    with open_adapter(path) as adapter:
        header = adapter.header
        require_family(config, header.architecture, path)
        yield from graph_changes(by_gguf_name(header.architecture), config, adapter.changes())


def require_adaptable(engine: Engine) -> Adaptable:
    """Returns the engine if it takes adapters.

    Raises:
        UnsupportedError: it does not.
    """
    if not isinstance(engine, Adaptable):
        raise UnsupportedError("the backend has no adapters", hint=HINT)
    return engine


def open_adapted(engine: Engine, adapters: Sequence[AdapterUse]) -> int:
    """Opens a sequence that is computed with adapters.

    Raises:
        UnsupportedError: the engine has none.
    """
    number = engine.open()
    if adapters:
        try:
            require_adaptable(engine).set_adapters(number, adapters)
        except UnsupportedError:
            engine.close(number)
            raise
    return number
