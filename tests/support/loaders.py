"""Loaders to try malformed files on: each reads all that there is."""

from __future__ import annotations

from pathlib import Path


def read_gguf(path: Path) -> None:
    """Opens a GGUF file and touches every byte of its tensors."""
    from edgeinfer.formats.gguf import open_gguf

    with open_gguf(path) as model:
        for name in model.tensors:
            model.data(name).sum()


def read_safetensors(path: Path) -> None:
    """Opens a safetensors file and touches every tensor that numpy can hold."""
    from edgeinfer.errors import UnsupportedError
    from edgeinfer.formats.safetensors import open_checkpoint

    with open_checkpoint(path) as checkpoint:
        for name in checkpoint.tensors:
            try:
                checkpoint.read(name).sum()
            except UnsupportedError:
                continue
