"""Printing an answer as it comes: in order, whole, and never in the way of the next token."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from edgeinfer.cli import ui


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """Makes a pipe of stdout and returns its reading end.

    In the test itself: pytest puts its own stdout back after the fixtures.
    """
    with ExitStack() as stack:

        def replace() -> int:
            reading, writing = os.pipe()
            stdout = stack.enter_context(os.fdopen(writing, "w", encoding="utf-8"))
            stack.enter_context(monkeypatch.context()).setattr(sys, "stdout", stdout)
            return reading

        yield replace


def read_all(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def test_a_reader_that_does_not_read_holds_nothing_up(pipe: Callable[[], int]) -> None:
    reading = pipe()
    pieces = [f"{number} äöü\n" * 100 for number in range(1000)]  # more than any pipe holds
    all_shown = threading.Event()
    received = []

    def read_late() -> None:
        assert all_shown.wait(60)
        received.append(read_all(reading))

    reader = threading.Thread(target=read_late)
    reader.start()
    with ui.stream() as show:
        for piece in pieces:
            show(piece)
        all_shown.set()
    sys.stdout.close()
    reader.join()

    assert received == ["".join(pieces).replace("\n", os.linesep).encode()]


def test_what_was_printed_before_comes_first(pipe: Callable[[], int]) -> None:
    reading = pipe()
    sys.stdout.write("before ")
    with ui.stream() as show:
        show("in the middle ")
    ui.emit("after")
    sys.stdout.close()

    assert read_all(reading).split() == b"before in the middle after".split()


def test_a_reader_that_leaves_is_an_error(pipe: Callable[[], int]) -> None:
    os.close(pipe())

    with pytest.raises(BrokenPipeError), ui.stream() as show:
        show("for nobody")


def test_the_text_before_an_error_is_printed(pipe: Callable[[], int]) -> None:
    reading = pipe()
    with pytest.raises(ValueError, match="no more"), ui.stream() as show:
        show("so far")
        raise ValueError("no more")
    sys.stdout.close()

    assert read_all(reading) == b"so far"


def test_an_interrupt_does_not_wait_for_the_reader(pipe: Callable[[], int]) -> None:
    reading = pipe()
    with pytest.raises(KeyboardInterrupt), ui.stream() as show:
        show("x" * (1 << 20))
        raise KeyboardInterrupt
    writers = [thread for thread in threading.enumerate() if thread.name == "stdout"]
    os.close(reading)  # they end with an error that nobody is told

    for writer in writers:
        writer.join(60)
        assert not writer.is_alive()


def test_a_stand_in_for_stdout_is_written_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with ui.stream() as show:
        show("text")
        assert capsys.readouterr().out == "text"
