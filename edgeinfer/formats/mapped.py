"""Files mapped into memory or read in parts, and the rule which files a model may name."""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeinfer.errors import CorruptFileError, EdgeInferError, NotFoundError


def map_file(path: Path) -> mmap.mmap | bytes:
    """Maps a regular file read-only; an empty one, which cannot be mapped, is ``b""``.

    The map goes when the last array over it goes, so it is never closed under an array.

    Raises:
        NotFoundError: there is no such file.
        CorruptFileError: it is a folder, a device or a pipe.
        EdgeInferError: it cannot be read.
    """
    try:
        # Looked at before opening: opening a pipe would wait for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            raise CorruptFileError(f"{path}: not a regular file")
        with path.open("rb") as file:
            size = file.seek(0, 2)
            return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b""
    except FileNotFoundError:
        raise NotFoundError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise EdgeInferError(f"{path}: cannot be read: {error}") from error


class Parts:
    """Reads parts of files by position.

    A map shows a failing disk, or a file that shrinks, as a signal that ends the process; here
    both are errors. Nor do the pages of the file count as the process's memory.
    """

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[int, int]] = {}  # which file it was

    def read(self, path: Path, offset: int, nbytes: int) -> NDArray[np.uint8]:
        """Returns bytes of a file, (nbytes,), in memory of their own.

        Raises:
            CorruptFileError: the file is shorter now, or another one.
            EdgeInferError: it cannot be read.
        """
        octets = np.empty(nbytes, np.uint8)
        try:
            with path.open("rb", buffering=0) as file:
                found = os.fstat(file.fileno())
                if self._seen.setdefault(path, (found.st_dev, found.st_ino)) != (
                    found.st_dev,
                    found.st_ino,
                ):
                    raise CorruptFileError(f"{path}: it was replaced while it was read")
                file.seek(offset)
                done = 0
                while done < nbytes:
                    count = file.readinto(octets.data[done:])
                    if not count:
                        raise CorruptFileError(f"{path}: it ended while it was read")
                    done += count
        except OSError as error:
            raise EdgeInferError(f"{path}: cannot be read: {error.strerror}") from error
        return octets


def sibling(first: Path, name: str) -> Path:
    """Returns the file ``name`` beside ``first``, another part of the same model.

    A link may lead out of the folder only to where ``first`` itself really lies, as it
    does in the cache of the Hugging Face hub.

    Raises:
        CorruptFileError: the name is a path, or the file is a link to elsewhere.
        NotFoundError: there is no such file.
    """
    if name in ("", ".", "..") or any(char in name for char in "/\\:\0"):
        raise CorruptFileError(f"{first}: it names {name!r:.80}, which is not a plain file name")
    path = first.parent / name
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: a link to itself, before Python 3.13
        raise NotFoundError(f"{path}: no such file, though {first.name} needs it") from None
    if real.parent not in (first.parent.resolve(), first.resolve().parent):
        raise CorruptFileError(f"{path}: a link that leaves the model's folder")
    return path
