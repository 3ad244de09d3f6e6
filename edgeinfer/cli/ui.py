"""The screen: the only place of the project that prints.

Data goes to stdout, so that it can be piped; progress, notes and errors go to stderr.
Colour and progress bars appear on a terminal only, and colour not with ``NO_COLOR``.
"""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Literal, Protocol, TextIO

import click

_verbose = False


def set_verbose() -> None:
    """Makes ``detail`` speak."""
    global _verbose
    _verbose = True


def is_interactive() -> bool:
    """True if a person sits at both ends: stdin and stdout are terminals."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def _styled(text: str, stream: TextIO, **style: bool | str) -> str:
    """The text in a style, or as it is where the stream shows none."""
    if not stream.isatty() or os.environ.get("NO_COLOR"):
        return text
    return click.style(text, **style)  # type: ignore[arg-type]


def emit(text: str = "", *, end: str = "\n") -> None:
    """Prints data to stdout at once."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


def emit_json(record: object) -> None:
    """Prints one record as one line of JSON to stdout."""
    emit(json.dumps(record, ensure_ascii=False))


@contextmanager
def stream() -> Iterator[Callable[[str], None]]:
    """Lends a function that prints text to stdout from a thread of its own.

    So a slow terminal, or a pipe that nobody reads, does not hold up what makes the text.
    Leaving waits until all is written; Ctrl-C does not wait.

    Raises:
        OSError: the reader is gone; by the function, or by leaving.
    """
    buffer = getattr(sys.stdout, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    if not isinstance(raw, io.RawIOBase):  # a stand-in in memory is never slow
        yield lambda text: emit(text, end="")
        return
    sys.stdout.flush()
    writer = _Writer(raw, sys.stdout.encoding, sys.stdout.errors or "strict")
    try:
        yield writer.put
    except Exception:
        writer.finish()
        raise
    writer.finish()


class _Writer:
    """Writes texts in order, in a thread.

    Past the buffer of ``sys.stdout``, whose lock a thread that never returns from writing
    would still hold when the program ends.
    """

    def __init__(self, raw: io.RawIOBase, encoding: str, errors: str) -> None:
        self._raw = raw
        self._encoding, self._errors = encoding, errors
        self._texts: SimpleQueue[str | None] = SimpleQueue()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="stdout", daemon=True)
        self._thread.start()

    def put(self, text: str) -> None:
        if self._error is not None:
            raise self._error
        self._texts.put(text)

    def finish(self) -> None:
        self._texts.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while (text := self._texts.get()) is not None:
                self._write(text.replace("\n", os.linesep))
        except OSError as error:
            self._error = error

    def _write(self, text: str) -> None:
        octets = memoryview(text.encode(self._encoding, self._errors))
        while octets:
            octets = octets[self._raw.write(octets) or 0 :]


def note(text: str) -> None:
    """Tells the user something beside the data."""
    click.echo(_styled(text, sys.stderr, dim=True), err=True, color=True)


def detail(text: str) -> None:
    """As ``note``, but only with ``-v``."""
    if _verbose:
        note(text)


def warn(text: str) -> None:
    """Tells of something that is probably not what the user wants."""
    click.echo(_styled("warning: ", sys.stderr, fg="yellow") + text, err=True, color=True)


def error(message: str, hint: str | None = None) -> None:
    """Tells what went wrong and what to do about it."""
    click.echo(_styled("error: ", sys.stderr, fg="red", bold=True) + message, err=True, color=True)
    if hint:
        click.echo(_styled("hint: ", sys.stderr, fg="cyan") + hint, err=True, color=True)


def table(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> None:
    """Prints a table to stdout; columns of numbers are flush right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    right = [
        bool(rows) and all(isinstance(row[column], (int, float)) for row in rows)
        for column in range(len(headers))
    ]
    for line in [list(headers), *cells]:
        padded = [
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(line, widths, right, strict=True)
        ]
        emit("  ".join(padded).rstrip())


def format_bytes(count: float) -> str:
    """A byte count for people: ``92.1 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


class Progress(Protocol):
    """What ``progress`` yields."""

    def to(self, done: int) -> None:
        """Sets how much is done in all."""

    def advance(self, count: int) -> None:
        """Adds to what is done."""

    def describe(self, text: str) -> None:
        """Says what is being done just now."""


class _Bar:
    """A tqdm bar; drawn on a terminal only."""

    def __init__(self, label: str, total: int | None, unit: str) -> None:
        from tqdm import tqdm

        self.bar = tqdm(
            desc=label,
            total=total,
            unit=unit,
            unit_scale=True,
            unit_divisor=1024 if unit == "B" else 1000,
            disable=None,  # quiet when stderr is no terminal
            leave=False,
            file=sys.stderr,
        )

    def to(self, done: int) -> None:
        self.bar.update(done - self.bar.n)

    def advance(self, count: int) -> None:
        self.bar.update(count)

    def describe(self, text: str) -> None:
        self.bar.set_postfix_str(text, refresh=False)


@contextmanager
def progress(
    label: str, total: int | None, unit: Literal["B", "tok", "tensor"] | str = "B"
) -> Iterator[Progress]:
    """Shows how far a long piece of work is; quiet when stderr is no terminal.

    Args:
        label: what is being done.
        total: how much there is to do, or None if that is not known.
        unit: of the numbers; "B" is shown as KiB, MiB, ...
    """
    bar = _Bar(label, total, unit)
    try:
        yield bar
    finally:
        bar.bar.close()
