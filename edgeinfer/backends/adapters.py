"""What the backends with adapters have in common: an adapter's file, held against the model."""

from __future__ import annotations

import os

from edgeinfer.arch import by_gguf_name
from edgeinfer.arch.config import ModelConfig
from edgeinfer.arch.lora import LowRank, graph_changes
from edgeinfer.errors import UnsupportedError
from edgeinfer.formats.adapter import read_adapter


def read_changes(path: str | os.PathLike[str], config: ModelConfig) -> dict[str, LowRank]:
    """Reads what an adapter changes of the matrices of a model's graph.

    Raises:
        NotFoundError: there is no such file.
        CorruptFileError: it is damaged, no adapter, or of a model of another shape.
        UnsupportedError: it is for another family, or changes what cannot be changed.
    """
    adapter = read_adapter(path)
    if adapter.architecture != config.architecture:
        raise UnsupportedError(
            f"{path}: an adapter for {adapter.architecture}, the model is {config.architecture}",
            hint="an adapter fits the model that it was trained on, and its finetunes",
        )
    return graph_changes(by_gguf_name(adapter.architecture), config, adapter.changes)
