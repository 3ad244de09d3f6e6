"""Tiny models as files, each made once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support import tiny

Converted = Callable[..., Path]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[tiny.Tiny], Path]:
    """Returns the folder of a tiny checkpoint."""
    folders: dict[str, Path] = {}

    def folder_of(model: tiny.Tiny) -> Path:
        if model.name not in folders:
            # Not the model's name: llama.cpp treats what is called phi3 in a way of its own.
            folders[model.name] = tiny.write(model, tmp_path_factory.mktemp("tiny") / "model")
        return folders[model.name]

    return folder_of


@pytest.fixture(scope="session")
def converted(checkpoint: Callable[[tiny.Tiny], Path]) -> Converted:
    """Returns the GGUF that our converter makes of a tiny checkpoint."""
    from edgeinfer_converters.gguf import convert

    def path_of(model: tiny.Tiny, quant: str = "f32") -> Path:
        folder = checkpoint(model)
        path = folder.parent / f"{quant}.gguf"
        if not path.exists():
            convert(folder, path, quant=quant)
        return path

    return path_of
