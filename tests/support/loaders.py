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


def run_model(path: Path) -> None:
    """Loads a model as a program does, answers a message and runs a few tokens."""
    import edgeinfer
    from edgeinfer.errors import UnsupportedError

    with edgeinfer.load(path, backend="native", context=32, threads=1, batch=8) as model:
        ids = model.tokenizer.encode("hello")
        model.logits(ids or [0])
        try:
            model.chat([{"role": "user", "content": "hi"}], max_tokens=2, seed=1)
        except UnsupportedError:  # no chat template: one of the keys that a file may lack
            model.generate("hi", max_tokens=2, seed=1)
