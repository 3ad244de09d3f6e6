"""Runs the command line as a function: arguments in, exit code, stdout and stderr out."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from edgeinfer.cli import _program


@dataclass
class Outcome:
    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture
def edgeinfer(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """``edgeinfer("chat", "--json")`` runs the program in this process."""

    def run(*arguments: str) -> Outcome:
        capsys.readouterr()
        code = _program.run(arguments)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def use_model(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """``use_model(model)``: the verbs get this model, whatever reference they are given."""

    def use(model: Any) -> None:
        from edgeinfer.cli import _fetch
        from edgeinfer.runtime import loading

        stored = SimpleNamespace(reference="fake", path="fake", format="fake", bytes=0)
        monkeypatch.setattr(_fetch, "fetch", lambda reference, **options: stored)
        monkeypatch.setattr(loading, "load", lambda reference, **options: model)

    return use


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """``piped("text")``: standard input is no terminal and holds the text."""

    def pipe(text: str) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))

    return pipe
