"""Where messages come from: an edited line of a terminal, or a line of a pipe."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from prompt_toolkit.history import History

PROMPT, CONTINUATION = ">>> ", "... "
QUOTES = '"""'


class Input(Protocol):
    """A source of messages."""

    def read(self) -> str:
        """Returns the next message.

        Raises:
            EOFError: there is none.
            KeyboardInterrupt: Ctrl-C.
        """


def join_lines(read_line: Callable[[str], str]) -> str:
    r"""Reads a message: one line, or several by \"\"\" ... \"\"\" or a backslash at the end.

    Args:
        read_line: returns a line for a prompt.
    """
    line = read_line(PROMPT)
    if line.startswith(QUOTES):
        text = line[len(QUOTES) :]
        while not text.rstrip().endswith(QUOTES):
            text += "\n" + read_line(CONTINUATION)
        return text.rstrip()[: -len(QUOTES)].strip("\n")
    lines = [line]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1][:-1]
        lines.append(read_line(CONTINUATION))
    return "\n".join(lines)


class PipedInput:
    """The lines of a file that is no terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def read(self) -> str:
        """As ``Input.read``."""
        return join_lines(self._line)

    def _line(self, prompt: str) -> str:
        line = self._stream.readline()
        if line:
            return line.rstrip("\n")
        if prompt == CONTINUATION:  # the message ends with the input
            return QUOTES
        raise EOFError


class TerminalInput:
    """Lines edited with prompt_toolkit, with history and completion of commands."""

    def __init__(self, commands: Sequence[str]) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter

        self._session: PromptSession[str] = PromptSession(
            history=history(),
            completer=WordCompleter(list(commands), sentence=True),
            complete_while_typing=False,
        )

    def read(self) -> str:
        """As ``Input.read``."""
        return join_lines(self._session.prompt)


def history() -> History:
    """The history file, readable by its owner only; in memory with EDGEINFER_NOHISTORY."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    if os.environ.get("EDGEINFER_NOHISTORY"):
        return InMemoryHistory()
    path = data_folder() / "history"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.chmod(0o600)
    return FileHistory(str(path))


def data_folder() -> Path:
    """``EDGEINFER_HOME``, or where the system keeps a program's data."""
    chosen = os.environ.get("EDGEINFER_HOME")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_data_path

    return user_data_path("edgeinfer", appauthor=False)


def read_all(parts: Iterable[str | None]) -> str:
    """Joins the parts of a prompt that were given, by empty lines."""
    return "\n\n".join(part.strip("\n") for part in parts if part and part.strip())
