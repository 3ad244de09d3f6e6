"""Lays out the files of /proc and /sys that tests/device/trees/*.txt record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

TREES = Path(__file__).parents[1] / "device/trees"


def recorded(name: str) -> dict[str, str]:
    """The files of a tree by path."""
    sections = (TREES / f"{name}.txt").read_text().split("\n== ")[1:]
    pairs = [section.partition("\n") for section in sections]
    return {path: content for path, _, content in pairs}


def write(root: Path, files: Mapping[str, str | None]) -> Path:
    """Writes files below a root; None leaves one out."""
    for path, content in files.items():
        if content is not None:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(content)
    return root


def lay_out(root: Path, name: str, changes: Mapping[str, str | None] | None = None) -> Path:
    """Writes a tree, with some files changed or (None) left out."""
    return write(root, recorded(name) | dict(changes or {}))
