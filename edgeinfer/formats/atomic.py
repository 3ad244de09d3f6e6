"""A file that appears whole or not at all, also when the process is killed meanwhile."""

from __future__ import annotations

import errno
import glob
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

from edgeinfer.errors import EdgeInferError, NotFoundError

Octets: TypeAlias = bytes | bytearray | memoryview
_YOUNG = 2.0  # seconds


class AtomicFile:
    """Writes a file under no name, or a hidden one, and renames it when it is complete.

    On Linux the file has no name until ``commit`` (O_TMPFILE), so that a killed process leaves
    nothing behind; elsewhere, and in the moment of the renaming, it is ``.NAME.XXXXXXXX.part``.
    Such a file is locked while its process lives; the next one that writes the same file removes
    those that are not. Leaving the context commits it, unless an exception leaves too.

    Raises:
        NotFoundError: the folder does not exist.
        EdgeInferError: the file cannot be written; whatever was there before still is.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._part = self.path.with_name(f".{self.path.name}.{os.urandom(4).hex()}.part")
        self._named = False  # whether _part exists
        with self._explained():
            _remove_dead(self.path)
            self._file = os.fdopen(self._open(), "wb")
            _lock(self._file.fileno())

    def _open(self) -> int:
        if hasattr(os, "O_TMPFILE"):
            try:
                return os.open(self.path.parent, os.O_TMPFILE | os.O_WRONLY, 0o666)
            except OSError as error:
                # Not every file system can: NFS and FUSE, for example.
                if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                    raise
        fd = os.open(
            self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666
        )
        self._named = True
        return fd

    def reserve(self, size: int) -> None:
        """Makes sure, before any work is done, that the disk has room for ``size`` bytes."""
        with self._explained():
            check_room(self.path, size)

    def write(self, data: Octets) -> None:
        """Appends bytes."""
        with self._explained():
            self._file.write(data)

    def readable(self) -> Path:
        """Where this process can read what was written so far."""
        with self._explained():
            self._file.flush()
        return self._part if self._named else Path(f"/proc/self/fd/{self._file.fileno()}")

    def sync(self) -> None:
        """Makes what was written durable; ``commit`` does so too, and then has less to do."""
        with self._explained():
            self._file.flush()
            os.fsync(self._file.fileno())

    def commit(self) -> None:
        """Makes the file durable and gives it its name, in place of any file of that name."""
        try:
            self.sync()
            with self._explained():
                self._name()
                self._file.close()
                os.replace(self._part, self.path)
                self._named = False
                _sync_folder(self.path.parent)
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Forgets what was written; after a commit it does nothing."""
        with suppress(OSError):  # closing writes what is buffered, and nobody wants it
            self._file.close()
        if self._named:
            self._part.unlink(missing_ok=True)
            self._named = False

    @property
    def closed(self) -> bool:
        """True after ``commit`` or ``abort``."""
        return self._file.closed

    def _name(self) -> None:
        if self._named:
            return
        # The way that open(2) gives; the folder's descriptor makes Python call linkat.
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            source = f"/proc/self/fd/{self._file.fileno()}"
            os.link(source, self._part.name, dst_dir_fd=folder, follow_symlinks=True)
        finally:
            os.close(folder)
        self._named = True

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise NotFoundError(f"{self.path.parent}: no such folder") from None
        except OSError as error:
            raise EdgeInferError(f"{self.path}: cannot be written: {error.strerror}") from error

    def __enter__(self) -> AtomicFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.abort()
        elif not self.closed:
            self.commit()


def check_writable(path: str | os.PathLike[str]) -> None:
    """Finds out before long work whether an ``AtomicFile`` can be written; leaves no trace.

    Raises:
        NotFoundError: the folder does not exist.
        EdgeInferError: the file cannot be written.
    """
    if Path(path).is_dir():
        raise EdgeInferError(f"{path}: cannot be written: {os.strerror(errno.EISDIR)}")
    AtomicFile(path).abort()


def check_room(path: Path, size: int) -> None:
    """Makes sure that the disk has room for ``size`` more bytes beside ``path``.

    Raises:
        EdgeInferError: it has not.
        OSError: it cannot be asked.
    """
    import shutil

    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise EdgeInferError(
            f"{path}: {size} bytes to write, {free} bytes free on the disk",
            hint="free some space, or choose another output",
        )


def _lock(fd: int) -> bool:
    """Locks an open file as long as it is open; False if another has, or files have no locks."""
    try:
        import fcntl
    except ImportError:  # on Windows an open file cannot be removed, which is as good
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_dead(path: Path) -> None:
    """Removes what processes that were killed had written for ``path``."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.????????.part"):
        with suppress(OSError):  # gone already, or not ours to remove
            if time.time() - part.stat().st_mtime < _YOUNG:
                continue  # its process may be about to lock it
            fd = os.open(part, os.O_RDONLY)
            try:
                dead = _lock(fd)
            finally:
                os.close(fd)
            if dead:
                part.unlink()


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # Windows cannot open a folder, and renames durably
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
