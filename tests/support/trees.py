"""Lays out the files of /proc and /sys that tests/device/trees/*.txt record.

A section ``== PATH`` holds a file's text. ``== PATH * 0-3,8`` stands for one section for each of
these numbers, with ``{}`` in path and text replaced by it; sections of the same path are one file.
``== PATH hex`` holds the bytes of a file in hexadecimal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from edgeinfer.device.procfs import parse_cpu_list

TREES = Path(__file__).parents[1] / "device/trees"
Content = str | bytes | None


def recorded(name: str) -> dict[str, str | bytes]:
    """The files of a tree by path."""
    files: dict[str, str | bytes] = {}
    for path, content in _sections((TREES / f"{name}.txt").read_text()):
        if path.endswith(" hex"):
            files[path.removesuffix(" hex")] = bytes.fromhex(content)
        else:
            files[path] = str(files.get(path, "")) + content
    return files


def _sections(text: str) -> Iterator[tuple[str, str]]:
    for section in text.split("\n== ")[1:]:
        head, _, content = section.partition("\n")
        path, star, numbers = head.partition(" * ")
        for number in parse_cpu_list(numbers) if star else [None]:
            if number is None:
                yield path, content
            else:
                yield path.replace("{}", str(number)), content.replace("{}", str(number)) + "\n"


def write(root: Path, files: Mapping[str, Content]) -> Path:
    """Writes files below a root; None leaves one out."""
    for path, content in files.items():
        if content is not None:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            raw = content if isinstance(content, bytes) else content.encode()
            (root / path).write_bytes(raw)
    return root


def lay_out(root: Path, name: str, changes: Mapping[str, Content] | None = None) -> Path:
    """Writes a tree, with some files changed or (None) left out."""
    return write(root, {**recorded(name), **(changes or {})})
