"""A conversation on disk with what the model has read of it, so that nothing is read again.

The file: a line that says what it is, the length of the header, the header as JSON
(messages, tokens, the model's hash, the form of the state), the engine's keys and values,
and a checksum of all before: the SHA-256 of the SHA-256s of the header and of each piece of
the state, which several threads take at the same time.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeinfer.errors import CorruptFileError, NotFoundError, UnsupportedError
from edgeinfer.formats.atomic import AtomicFile
from edgeinfer.runtime.transcript import check_messages
from edgeinfer.types import Message

MAGIC = b"edgeinfer session 2\n"
_DIGEST = 32
_PIECE = 4 << 20  # bytes of the state
_SAMPLES, _SAMPLE = 64, 1 << 16  # of a model file: how many pieces, of how many bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A saved conversation; ``state`` is of ``tokens``, in the engine's ``form``."""

    messages: list[Message]
    tokens: list[int]
    form: str = ""
    state: bytes | memoryview = b""


def model_hash(path: str | os.PathLike[str]) -> str:
    """Tells model files apart: SHA-256 of the size and pieces from beginning to end.

    A whole model takes seconds to read; other weights differ everywhere.
    """
    size = os.path.getsize(path)
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        for number in range(_SAMPLES):
            file.seek(max(size - _SAMPLE, 0) * number // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def write(path: str | os.PathLike[str], saved: Saved, *, model: str) -> None:
    """Writes a conversation, whole or not at all.

    Raises:
        NotFoundError: the folder does not exist.
        EdgeInferError: the file cannot be written.
    """
    header = json.dumps(
        {
            "model": model,
            "form": saved.form,
            "messages": [dict(message) for message in saved.messages],
            "tokens": saved.tokens,
        }
    ).encode()
    head = MAGIC + len(header).to_bytes(8, "little") + header
    with AtomicFile(Path(path).expanduser()) as file:
        for part in (head, saved.state, checksum(head, saved.state)):
            file.write(part)


def checksum(head: bytes | memoryview, state: bytes | memoryview) -> bytes:
    """What a file ends with: of its header, with what is before that, and of the state."""
    state = memoryview(state)
    pieces = [head, *(state[at : at + _PIECE] for at in range(0, len(state), _PIECE))]
    with ThreadPoolExecutor() as workers:  # hashing releases the GIL
        digests = workers.map(lambda piece: hashlib.sha256(piece).digest(), pieces)
        return hashlib.sha256(b"".join(digests)).digest()


def is_saved(path: str | os.PathLike[str]) -> bool:
    """True if a file says that it is one of these."""
    try:
        with open(Path(path).expanduser(), "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def read(path: str | os.PathLike[str], *, model: str) -> Saved:
    """Reads a conversation that was saved with this model.

    Raises:
        NotFoundError: there is no such file.
        CorruptFileError: it is damaged, or something else.
        UnsupportedError: it is of another model.
    """
    path = Path(path).expanduser()
    try:
        with path.open("rb") as file:  # mapped: read, it would take twice the time
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError:
        raise NotFoundError(f"{path}: no such file") from None
    except ValueError:
        raise CorruptFileError(f"{path}: the file is empty") from None
    if data[: len(MAGIC)] != MAGIC:
        raise CorruptFileError(f"{path}: no saved session")
    body, digest = data[:-_DIGEST], data[-_DIGEST:]
    start = len(MAGIC) + 8
    end = start + int.from_bytes(body[len(MAGIC) : start], "little")
    if checksum(body[:end], body[end:]) != digest:
        raise CorruptFileError(f"{path}: the checksum does not fit; the file is damaged")
    try:
        header: Any = json.loads(bytes(body[start:end]))
        messages, tokens = header["messages"], header["tokens"]
        form, own = str(header["form"]), header["model"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptFileError(f"{path}: the header makes no sense: {error}") from None
    if own != model:
        raise UnsupportedError(
            f"{path}: it was saved with another model", hint="load the model it was saved with"
        )
    check_messages(path, messages)
    if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
        raise CorruptFileError(f"{path}: 'tokens' is no list of numbers")
    return Saved(messages=messages, tokens=tokens, form=form, state=body[end:])
