"""The notations of files in /proc and /sys. A file that is missing reads as empty."""

from __future__ import annotations

import re
from pathlib import Path


def read_text(path: Path) -> str:
    """The file's text; "" if this kernel does not have it or does not show it."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def read_int(path: Path) -> int | None:
    """The file's one number, or None."""
    text = read_text(path).strip()
    return int(text) if text.lstrip("-").isdigit() else None


def read_kilobytes(path: Path) -> dict[str, int]:
    """The "Name:   123 kB" lines of a file of /proc, in bytes."""
    lines = re.findall(r"^(\w+):\s+(\d+) kB$", read_text(path), re.M)
    return {name: int(value) * 1024 for name, value in lines}


def parse_cpu_list(text: str) -> list[int]:
    """Parses the kernel's "0-3,8" notation."""
    cpus: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            cpus.extend(range(int(first), int(last or first) + 1))
    return cpus
