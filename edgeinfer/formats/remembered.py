"""A small JSON file of things found out before: nothing is lost but time if it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeinfer.errors import EdgeInferError
from edgeinfer.formats.atomic import AtomicFile

MOST = 256  # entries; the oldest go first
LARGEST = 4 << 20  # bytes


class Remembered:
    """Records by key in a file, written whole or not at all.

    A file that is damaged, or cannot be written, is as one that is empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, key: str) -> dict[str, Any] | None:
        """The record of a key, or None."""
        return self._read().get(key)

    def put(self, key: str, record: dict[str, Any]) -> None:
        """Adds a record, or replaces it."""
        from filelock import FileLock

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_suffix(".lock")):
                records = self._read()
                records.pop(key, None)
                records[key] = record
                newest = dict(list(records.items())[-MOST:])
                with AtomicFile(self.path) as file:
                    file.write((json.dumps(newest, indent=1) + "\n").encode())
        except (OSError, EdgeInferError):  # no room, read-only: it is found out again
            return

    def items(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """All records, the oldest first."""
        yield from self._read().items()

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            if self.path.stat().st_size > LARGEST:
                return {}
            records = json.loads(self.path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(records, dict):
            return {}
        return {key: value for key, value in records.items() if isinstance(value, dict)}
