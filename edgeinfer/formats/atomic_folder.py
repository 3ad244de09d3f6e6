"""A folder that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from edgeinfer.errors import EdgeInferError, NotFoundError, UsageError


class AtomicFolder:
    """A folder under a hidden name, ``part``, which ``commit`` makes durable and renames.

    Leaving the context commits it, unless an exception leaves too. A folder that is there
    already is replaced only if it holds a file called ``mark``: one of the same making.

    Raises:
        UsageError: the place is taken by something else.
        NotFoundError: the folder around it does not exist.
        EdgeInferError: it cannot be written; whatever was there before still is.
    """

    def __init__(self, path: str | os.PathLike[str], *, mark: str) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            if any(self.path.iterdir()) and not (self.path / mark).is_file():
                raise UsageError(
                    f"{self.path}: a folder with other things in it", hint="choose another output"
                )
        elif self.path.exists():
            raise UsageError(f"{self.path}: a file", hint="the output is a folder; choose another")
        self._suffix = os.urandom(4).hex()
        self.part = self.path.with_name(f".{self.path.name}.{self._suffix}.part")
        try:
            self.part.mkdir()
        except FileNotFoundError:
            raise NotFoundError(f"{self.path.parent}: no such folder") from None
        except OSError as error:
            raise self._failure(error) from error

    def sync(self) -> None:
        """Makes all files durable; ``commit`` does so too, and then has less to do."""
        with self.explained():
            for file in sorted(self.part.rglob("*")):
                _sync(file)
            _sync(self.part)

    def commit(self) -> None:
        """Makes all files durable and gives the folder its name."""
        old = self.path.with_name(f".{self.path.name}.{self._suffix}.old")
        try:
            self.sync()
            with self.explained():
                # There is no portable way to exchange two folders: for an instant there is none.
                replaces = self.path.exists()
                if replaces:
                    self.path.rename(old)
                try:
                    self.part.rename(self.path)
                except OSError:
                    if replaces:
                        old.rename(self.path)
                    raise
                _sync(self.path.parent)
        except BaseException:
            self.abort()
            raise
        shutil.rmtree(old, ignore_errors=True)

    def abort(self) -> None:
        """Forgets what was written; after a commit it does nothing."""
        shutil.rmtree(self.part, ignore_errors=True)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Raises what the disk says against a file of the folder as an error that names it."""
        try:
            yield
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> EdgeInferError:
        return EdgeInferError(f"{self.path}: cannot be written: {error.strerror}")

    def __enter__(self) -> AtomicFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.commit()
            return
        self.abort()
        if isinstance(error, OSError):
            raise self._failure(error) from error


def _sync(path: Path) -> None:
    if path.is_dir() and os.name != "posix":  # Windows cannot open a folder
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems cannot sync a folder
            os.fsync(fd)
    finally:
        os.close(fd)
