"""A conversation as a file: JSON, written whole or not at all, checked when read."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from edgeinfer.errors import CorruptFileError, NotFoundError
from edgeinfer.formats.atomic import AtomicFile
from edgeinfer.types import Message

ROLES = ("system", "user", "assistant", "tool")
LARGEST = 64 << 20  # bytes; no conversation fits a context that is longer


def save(path: str | os.PathLike[str], messages: Sequence[Message], *, model: str) -> None:
    """Writes a conversation.

    Raises:
        NotFoundError: the folder does not exist.
        EdgeInferError: the file cannot be written.
    """
    record = {"model": model, "messages": [dict(message) for message in messages]}
    with AtomicFile(Path(path).expanduser()) as file:
        file.write((json.dumps(record, ensure_ascii=False, indent=2) + "\n").encode())


def load(path: str | os.PathLike[str]) -> list[Message]:
    """Reads the messages of a conversation.

    Raises:
        NotFoundError: there is no such file.
        CorruptFileError: it is no conversation; says where.
    """
    path = Path(path).expanduser()
    try:
        if path.stat().st_size > LARGEST:
            raise CorruptFileError(f"{path}: too large for a conversation")
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise NotFoundError(f"{path}: no such file") from None
    except (ValueError, RecursionError) as error:
        raise CorruptFileError(f"{path}: no JSON: {error}") from None
    return check_messages(path, record.get("messages") if isinstance(record, dict) else None)


def check_messages(path: Path, messages: object) -> list[Message]:
    """Returns a conversation read from a file, or raises a CorruptFileError that says where."""
    if not isinstance(messages, list):
        raise CorruptFileError(f"{path}: no conversation: 'messages' is not a list")
    for number, message in enumerate(messages):
        _check(path, number, message)
    return messages


def _check(path: Path, number: int, message: object) -> None:
    if not isinstance(message, dict):
        raise CorruptFileError(f"{path}: message {number} is not an object")
    if message.get("role") not in ROLES:
        raise CorruptFileError(
            f"{path}: message {number} has the role {message.get('role')!r}",
            hint=f"roles are {', '.join(ROLES)}",
        )
    if not isinstance(message.get("content"), str):
        raise CorruptFileError(f"{path}: message {number} has no text as its 'content'")
