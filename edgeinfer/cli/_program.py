"""The program around the verbs: finds them, runs one, and turns errors into exit codes.

A verb is a module of the package that defines ``command``, a ``click.Command``; adding
the file adds the verb. Modules that are no verb begin with an underscore (``ui`` is the
one exception). A verb's module imports nothing heavy at its top, so that help stays fast.
"""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from itertools import takewhile
from pkgutil import iter_modules

import click

from edgeinfer import cli
from edgeinfer.cli import ui
from edgeinfer.errors import EdgeInferError

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def verbs() -> list[str]:
    """The names of all verbs, sorted."""
    return sorted(
        module.name
        for module in iter_modules(cli.__path__)
        if not module.ispkg and not module.name.startswith("_") and module.name != "ui"
    )


class _Tell(logging.Handler):
    """What the library logs: warnings in colour, the rest with ``-v``."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            ui.warn(record.getMessage())
        else:
            ui.detail(record.getMessage())


def _set_verbose(_context: click.Context, _option: click.Parameter, verbose: bool) -> None:
    if verbose:
        ui.set_verbose()
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")


def _verbose_option() -> click.Option:
    """``-v``, which the program and every verb take."""
    return click.Option(
        ["-v", "--verbose"],
        is_flag=True,
        expose_value=False,
        callback=_set_verbose,
        help="Say more about what happens, on stderr.",
    )


def _print_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        ui.emit(f"edgeinfer {version('edgeinfer')}")
        context.exit()


class Verbs(click.Group):
    """A group whose commands are the modules of this package, imported when needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, without importing them."""
        return verbs()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports one verb, or returns None for an unknown one."""
        if cmd_name not in verbs():
            return None
        command: click.Command = import_module(f"{cli.__name__}.{cmd_name}").command
        if not any(parameter.name == "verbose" for parameter in command.params):
            command.params.append(_verbose_option())
        return command


program = Verbs(
    "edgeinfer",
    help="Language models on the machine in front of you: convert, plan, chat.",
    context_settings={"help_option_names": ["-h", "--help"]},
    params=[
        click.Option(
            ["-V", "--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_print_version,
            help="Show the version and exit.",
        ),
        _verbose_option(),
    ],
)


def run(arguments: Sequence[str]) -> int:
    """Runs the program and returns its exit code; errors are told in one place, here.

    With ``--json`` an error is also a record on stdout. A reader that leaves (``| head``)
    ends the program quietly; click sees to that.
    """
    log = logging.getLogger("edgeinfer")
    log.handlers, log.propagate = [_Tell()], False
    as_json = "--json" in takewhile(lambda argument: argument != "--", arguments)
    try:
        code = program.main(list(arguments), prog_name="edgeinfer", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except EdgeInferError as error:
        return _tell(error.to_json(), error.message, error.hint, error.exit_code, as_json)
    except click.UsageError as error:
        hint = f"see '{error.ctx.command_path} --help'" if error.ctx else None
        message = error.format_message()
        body = {"error": {"code": "usage", "message": message, "hint": hint}}
        return _tell(body, message, hint, error.exit_code, as_json)
    except click.ClickException as error:
        message = error.format_message()
        body = {"error": {"code": "runtime_error", "message": message}}
        return _tell(body, message, None, error.exit_code, as_json)
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except OSError as error:
        body = {"error": {"code": "runtime_error", "message": str(error)}}
        return _tell(body, str(error), None, 1, as_json)


def _tell(
    body: Mapping[str, object], message: str, hint: str | None, exit_code: int, as_json: bool
) -> int:
    if as_json:
        ui.emit_json(body)
    ui.error(message, hint)
    return exit_code


def main() -> None:
    """The ``edgeinfer`` program."""
    # Reading a vocabulary makes a hundred thousand objects and no garbage; looking for some after
    # every 700, as is the default, would take a tenth of the time to the first token.
    gc.set_threshold(100_000)
    sys.exit(run(sys.argv[1:]))
