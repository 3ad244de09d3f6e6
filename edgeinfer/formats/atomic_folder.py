"""A folder that appears whole or not at all."""

from __future__ import annotations

import glob
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from edgeinfer.errors import EdgeInferError, NotFoundError, UsageError
from edgeinfer.formats.atomic import check_room

YOUNG = 2.0  # seconds


class AtomicFolder:
    """A folder under a hidden name, ``part``, which ``commit`` makes durable and renames.

    Leaving the context commits it, unless an exception leaves too. A folder that is there
    already is replaced only if it holds a file called ``mark``: one of the same making.

    The part is locked while its process lives. What killed processes have left is removed by the
    next one that writes the same folder, and an old folder that one had just moved away is put
    back.

    Raises:
        UsageError: the place is taken by something else.
        NotFoundError: the folder around it does not exist.
        EdgeInferError: it cannot be written; whatever was there before still is.
    """

    def __init__(self, path: str | os.PathLike[str], *, mark: str) -> None:
        self.path = Path(path)
        _clear_up(self.path)
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
            self._lock: int | None = _locked(self.part)
        except FileNotFoundError:
            raise NotFoundError(f"{self.path.parent}: no such folder") from None
        except OSError as error:
            raise self._failure(error) from error

    def reserve(self, size: int) -> None:
        """Makes sure, before any work is done, that the disk has room for ``size`` bytes."""
        with self.explained():
            check_room(self.path, size)

    def sync(self) -> None:
        """Makes all files durable; ``commit`` does so too, and then has less to do."""
        with self.explained():
            for file in sorted(self.part.rglob("*")):
                _sync(file)
            _sync(self.part)

    def commit(self) -> None:
        """Makes all files durable and gives the folder its name."""
        old = self.path.with_name(f".{self.path.name}.{self._suffix}.old")
        held = None
        try:
            self.sync()
            with self.explained():
                # There is no portable way to exchange two folders: for an instant there is none.
                replaces = self.path.exists()
                if replaces:
                    held = _locked(self.path)  # it is not left by a killed process
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
        finally:
            if held is not None:
                shutil.rmtree(old, ignore_errors=True)
                os.close(held)
        self._unlock()
        shutil.rmtree(old, ignore_errors=True)

    def abort(self) -> None:
        """Forgets what was written; after a commit it does nothing."""
        shutil.rmtree(self.part, ignore_errors=True)
        self._unlock()

    def _unlock(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

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


def _locked(folder: Path) -> int | None:
    """Opens and locks a folder; None if another has, or if folders have no locks here."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd


def _clear_up(path: Path) -> None:
    """Puts right what processes that were killed have left of writing ``path``."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????.*"):
        with suppress(OSError):  # gone already, or not ours to touch
            if left.suffix not in (".part", ".old") or not left.is_dir():
                continue
            if time.time() - left.stat().st_mtime < YOUNG and left.suffix == ".part":
                continue  # its process may be about to lock it
            lock = _locked(left)
            if lock is None:
                continue  # it is being written
            try:
                # Killed between moving the old folder away and giving the new one its name.
                if left.suffix == ".old" and not path.exists():
                    left.rename(path)
                else:
                    shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)


def _sync(path: Path) -> None:
    if path.is_dir() and os.name != "posix":  # Windows cannot open a folder
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems cannot sync a folder
            os.fsync(fd)
    finally:
        os.close(fd)
