"""Maps of files that shrink or cannot be read while they are used: an error, not a dead process.

    with Guard([path]) as guard:
        ...  # read a map of the file
        guard.check()

Where a page is missing the reader gets zeros, and the check, or leaving, says so. On systems other
than Linux and Android nothing is guarded, and nothing is ever found.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from edgeinfer.errors import CorruptFileError


class Guard:
    """Guards the maps of some files, whoever made them, until it is closed."""

    def __init__(self, paths: Iterable[Path]) -> None:
        from edgeinfer import _native

        self._native = _native
        self._files: dict[Path, tuple[int, int]] = {}  # number, losses before
        for path in paths:
            try:
                fd = os.open(path, os.O_RDONLY)
            except OSError:  # whoever opens it says so
                continue
            number = _native.guard_file(fd)
            os.close(fd)
            self._files[path] = (number, _native.file_losses(number))

    def check(self) -> None:
        """Raises a CorruptFileError if a page of a file was missing since it is under guard."""
        for path, (number, before) in self._files.items():
            if self._native.file_losses(number) > before:
                raise CorruptFileError(
                    f"{path}: cut short, or not readable any more, while it was in use",
                    hint="download or convert it again, and load it anew",
                )

    def close(self) -> None:
        """Takes the guard off; closing twice is fine."""
        for number, _ in self._files.values():
            self._native.release_file(number)
        self._files = {}

    def __enter__(self) -> Guard:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Zeros may have been found wanting before; the reason is what the user is to know.
        try:
            if error is None or isinstance(error, Exception):
                self.check()
        finally:
            self.close()
