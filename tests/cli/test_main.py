"""The program around the verbs: help, version, errors and exit codes."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import click
import pytest

from edgeinfer.cli import _program, ui
from edgeinfer.errors import (
    CorruptFileError,
    DoesNotFitError,
    EdgeInferError,
    NotFoundError,
    UnsupportedError,
)

ERRORS = [
    (EdgeInferError("it broke", hint="mend it"), 1),
    (NotFoundError("no such model"), 3),
    (DoesNotFitError("too big", need_bytes=2, have_bytes=1, suggest="-c 512"), 4),
    (UnsupportedError("what is this"), 5),
    (CorruptFileError("cut off"), 6),
    (KeyboardInterrupt(), 130),
    (PermissionError(13, "Permission denied", "/models/x"), 1),
    (click.UsageError("wrong"), 2),
]


@pytest.fixture
def verb(monkeypatch):
    """Adds a verb ``probe`` that runs the given function."""

    def add(function):
        command = click.Command(
            "probe", callback=function, params=[click.Option(["--json"], expose_value=False)]
        )
        command.params[0].is_flag = True
        get = _program.Verbs.get_command
        monkeypatch.setattr(
            _program.Verbs,
            "get_command",
            lambda self, ctx, name: command if name == "probe" else get(self, ctx, name),
        )

    return add


def raiser(error):
    def function():
        raise error

    return function


@pytest.fixture(scope="module")
def ran() -> int:
    return _program.run(["--version"])


def test_what_a_module_s_fixture_ran_leaves_the_log_to_other_tests(ran, caplog):
    log = logging.getLogger("edgeinfer")

    log.warning("once")

    assert ran == 0 and log.propagate and log.handlers == []
    assert [record.getMessage() for record in caplog.records] == ["once"]


@pytest.mark.parametrize(("error", "code"), ERRORS, ids=lambda value: type(value).__name__)
def test_each_error_has_its_exit_code_and_is_told_on_stderr(edgeinfer, verb, error, code):
    verb(raiser(error))

    outcome = edgeinfer("probe")

    assert outcome.exit_code == code
    assert outcome.stdout == ""
    if code != 130:
        assert "error: " in outcome.stderr
        assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize(("error", "code"), ERRORS, ids=lambda value: type(value).__name__)
def test_with_json_the_error_is_a_record_on_stdout(edgeinfer, verb, error, code):
    verb(raiser(error))

    outcome = edgeinfer("probe", "--json")

    assert outcome.exit_code == code
    if isinstance(error, EdgeInferError):
        assert json.loads(outcome.stdout) == error.to_json()
    elif code != 130:
        assert json.loads(outcome.stdout)["error"]["message"]


def test_the_hint_follows_the_error(edgeinfer, verb):
    verb(raiser(EdgeInferError("it broke", hint="mend it")))

    assert edgeinfer("probe").stderr == "error: it broke\nhint: mend it\n"


@pytest.mark.parametrize("arguments", [["no-such-verb"], ["--no-such-option"]])
def test_a_usage_error_exits_with_2(edgeinfer, arguments):
    assert edgeinfer(*arguments).exit_code == 2


def test_version(edgeinfer):
    outcome = edgeinfer("-V")

    assert outcome.exit_code == 0
    assert outcome.stdout.startswith("edgeinfer 0.")


def test_every_verb_has_help_and_takes_v(edgeinfer):
    for name in _program.verbs():
        outcome = edgeinfer(name, "--help")
        assert outcome.exit_code == 0, name
        assert "-v, --verbose" in outcome.stdout, name


def test_help_imports_nothing_heavy():
    script = (
        "import sys; from edgeinfer.cli import _program; _program.run(['--help']);"
        "print([m for m in ('numpy', 'tokenizers', 'huggingface_hub', 'prompt_toolkit', 'jinja2')"
        " if m in sys.modules])"
    )

    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert result.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_leaves_ends_the_program_quietly():
    script = (
        "import sys; from edgeinfer.cli import ui\n"
        "import click\n"
        "from edgeinfer.cli import _program\n"
        "def talk():\n    while True: ui.emit('x' * 1000)\n"
        "_program.Verbs.get_command = lambda *_: click.Command('talk', callback=talk)\n"
        "sys.exit(_program.run(['talk']))"
    )

    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.read(10)
    process.stdout.close()
    told = process.stderr.read()
    process.stderr.close()

    assert process.wait(timeout=20) != 0
    assert told == b""


def test_a_table_aligns_numbers_right(capsys):
    ui.table([["a", 1], ["long", 100]], ["name", "count"])

    assert capsys.readouterr().out == "name  count\na         1\nlong    100\n"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 40, "3.0 TiB")]
)
def test_bytes_are_written_for_people(count, text):
    assert ui.format_bytes(count) == text


def test_no_colour_where_there_is_no_terminal(capsys):
    ui.note("hello")
    ui.warn("careful")

    assert capsys.readouterr().err == "hello\nwarning: careful\n"


def test_progress_is_quiet_where_there_is_no_terminal(capsys):
    with ui.progress("reading", 100, "B") as progress:
        progress.to(50)
        progress.advance(50)

    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
