"""Runs the command line as a function: arguments in, exit code, stdout and stderr out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from edgeinfer import cli


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
        code = cli.run(arguments)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run
