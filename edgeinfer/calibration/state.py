"""What was measured of a model so far, in a file, so that nothing is measured twice."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeinfer.errors import UsageError
from edgeinfer.formats.atomic import AtomicFile, check_writable

_BEGIN = b'{\n "key": '  # of every file that is written
_EVERY = 5.0  # seconds between two writes
_SAMPLE, _SAMPLES = 1 << 16, 64  # bytes, and places, of a file that its fingerprint reads


class State:
    """Numbers by tensor and kind; of another model or text, it begins empty.

    A file that is damaged is as one that is not there, and written anew.

    Raises:
        UsageError: the file is something else, which must not be overwritten.
        NotFoundError: its folder does not exist.
        EdgeInferError: it cannot be written.
    """

    def __init__(self, path: Path | None, key: str) -> None:
        self._path, self._key = path, key
        self._written = time.monotonic()
        self.numbers: dict[str, dict[str, float]] = self._read()
        if path is not None:
            check_writable(path)

    def get(self, tensor: str, kind: str) -> float | None:
        """A number, or None if it was not measured."""
        return self.numbers.get(tensor, {}).get(kind)

    def put(self, tensor: str, numbers: Mapping[str, float]) -> None:
        """Keeps numbers; now and then all are written."""
        self.numbers.setdefault(tensor, {}).update(numbers)
        if time.monotonic() - self._written > _EVERY:
            self.write()

    def write(self) -> None:
        """Writes all that is known, whole or not at all."""
        self._written = time.monotonic()
        if self._path is not None:
            with AtomicFile(self._path) as file:
                record = {"key": self._key, "numbers": self.numbers}
                file.write((json.dumps(record, indent=1) + "\n").encode())

    def _read(self) -> dict[str, dict[str, float]]:
        if self._path is None or not self._path.is_file():
            return {}
        with self._path.open("rb") as file:
            begin = file.read(len(_BEGIN))
        if begin not in (b"", _BEGIN):
            raise UsageError(
                f"{self._path}: not a file of measurements", hint="name another with --state"
            )
        try:
            record: Any = json.loads(self._path.read_bytes())
            if record["key"] != self._key:
                return {}
            return {
                str(tensor): {str(kind): float(number) for kind, number in numbers.items()}
                for tensor, numbers in record["numbers"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}


def fingerprint(path: Path) -> str:
    """Tells a file, or a folder of files, from others: sizes, and samples of what they hold."""
    digest = hashlib.sha256()
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as stream:
            for place in range(_SAMPLES):
                stream.seek(max(0, size - _SAMPLE) * place // (_SAMPLES - 1))
                digest.update(stream.read(_SAMPLE))
    return digest.hexdigest()
