"""What convert does with several formats, and with a report: one pass, then each is measured."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgeinfer.cli import ui
from edgeinfer.errors import EdgeInferError, UsageError

if TYPE_CHECKING:
    from edgeinfer.evaluation.fidelity import Fidelity
    from edgeinfer.runtime.fidelity import Text

F = TypeVar("F", bound=Callable[..., Any])
Wanted = tuple[str, str | None]  # a format, and the quant type that is asked for

DEFAULT = "int4"  # of several formats: the form that all of them have

_OPTIONS = (
    click.option(
        "--report/--no-report", default=None,
        help="Measure what each output keeps, on its own backend beside the source's weights as "
        "they are: perplexity, KL, top-1 agreement; NAME.fidelity.md and .json beside the outputs. "
        "By default with several formats.",
    ),
    click.option(
        "--report-text", type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="Text to predict; by default one in many languages that comes with edgeinfer.",
    ),
    click.option(
        "--report-chunks", type=click.IntRange(min=1), default=8, show_default=True,
        help="Pieces of 512 tokens of it.",
    ),
)  # fmt: skip


def report_options(command: F) -> F:
    """Adds the options; the command gets them by name."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """The options by name."""

    report: bool | None
    report_text: Path | None
    report_chunks: int


def formats(to: str, quant: str | None) -> list[Wanted]:
    """Reads --to: "gguf", "gguf,onnx", "gguf:q4_k_m,onnx".

    Args:
        to: formats, each with a quant type of its own or not.
        quant: of those without; None for the default.

    Raises:
        UsageError: it is none of these.
    """
    names = [name.strip() for name in to.split(",")]
    common = quant or (DEFAULT if len(names) > 1 else None)
    wanted: list[Wanted] = []
    for name in names:
        format_, colon, own = name.partition(":")
        if not format_ or (colon and not own):
            raise UsageError(f"--to {to!r}", hint="for example gguf,onnx or gguf:q4_k_m,mlc")
        wanted.append((format_, own or common))
    if len({(f, q) for f, q in wanted}) < len(wanted):
        raise UsageError(f"--to {to!r}: the same form twice")
    return wanted


def convert_several(
    source: Path,
    targets: Sequence[tuple[str, str | None, Path]],
    stem: Path,
    report: ReportOptions,
    *,
    calibrated_on: Path | bool | None,
    threads: int | None,
    as_json: bool,
    options: Mapping[str, Any],
) -> None:
    """Converts, measures, and tells.

    Args:
        source: what is converted.
        targets: format, quant type and output of each.
        stem: the report's path, without its endings.
        report: whether, and on which text.
        calibrated_on: the text of the importance matrix, None for the built-in one, False for
            none that is known.
        threads: at most so many.
        as_json: print a record.
        options: of the converters.
    """
    from edgeinfer.evaluation.fidelity import Fidelity
    from edgeinfer.runtime.conversion import convert_all

    text = _text(report.report_text)
    records: dict[str, dict[str, Any]] = {}
    reasons: dict[str, str] = {}

    def measure(exact: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="edgeinfer-") as folder:
            for path, found in _measured(
                exact, targets, text, Path(folder), report.report_chunks, threads
            ):
                if isinstance(found, EdgeInferError):
                    reasons[str(path)] = _reason(found)
                else:
                    records[str(path)] = found

    with _folder(stem.parent), conversion_bar(f"converting {stem.name}") as show:
        conversions = [
            conversion.to_json()
            for conversion in convert_all(
                source,
                targets,
                threads=threads,
                progress=show,
                exact=None if report.report is False else measure,
                **options,
            )
        ]
    fidelity = None
    if report.report is not False:
        fidelity = Fidelity(
            source=str(source),
            conversions=conversions,
            records=records,
            reasons=reasons,
            text=text.about(),
            calibrated=calibrated_on is not False and calibrated_on == report.report_text,
        )
        for path in fidelity.write(stem):
            ui.note(f"wrote {path}")
    _tell(conversions, fidelity, as_json=as_json)


def _measured(
    exact: Path,
    targets: Sequence[tuple[str, str | None, Path]],
    text: Text,
    folder: Path,
    chunks: int,
    threads: int | None,
) -> Iterator[tuple[Path, dict[str, Any] | EdgeInferError]]:
    """Measures each output, or says why it cannot be."""
    from edgeinfer.runtime.fidelity import Reference, measured

    with ExitStack() as stack:

        def bar(label: str, total: int) -> Callable[[int], object]:
            stack.pop_all().close()  # the one before is done
            return stack.enter_context(ui.progress(label, total, "chunk")).to

        try:
            reference = Reference.of(
                exact,
                text,
                folder,
                outputs=[output for *_, output in targets],
                chunks=chunks,
                threads=threads,
                progress=bar("the source as it is", chunks),
            )
        except EdgeInferError as error:
            for _, _, output in targets:
                yield output, error
            return
        for format_, _, output in targets:
            try:
                yield output, measured(output, format_, reference, threads=threads, bars=bar)
            except EdgeInferError as error:
                yield output, error


def _reason(error: EdgeInferError) -> str:
    return f"{error.message}: {error.hint}" if error.hint else error.message


def _text(path: Path | None) -> Text:
    from edgeinfer.calibration.text import NAME, calibration_text, read_text
    from edgeinfer.runtime.fidelity import Text

    if path is None:
        return Text(name=NAME, content=calibration_text())
    return Text(name=str(path), content=read_text(path))


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Makes the folder of the outputs; one that stays empty goes again."""
    made = not path.exists()
    if made:
        try:
            path.mkdir(parents=True)
        except OSError as error:
            raise EdgeInferError(f"{path}: cannot be made: {error.strerror}") from error
    try:
        yield
    except BaseException:
        if made:
            with suppress(OSError):  # there is something in it
                path.rmdir()
        raise


@contextmanager
def conversion_bar(label: str) -> Iterator[Callable[[Any], None]]:
    """Shows how far a conversion is, from when it is known how much there is to write."""
    with ExitStack() as stack:
        bar: ui.Progress | None = None

        def show(progress: Any) -> None:
            nonlocal bar
            if bar is None:
                bar = stack.enter_context(ui.progress(label, progress.bytes_total))
            bar.describe(f"tensor {progress.number}/{progress.tensors}")
            bar.to(progress.bytes_out)

        yield show


def _tell(
    conversions: Sequence[Mapping[str, Any]], fidelity: Fidelity | None, *, as_json: bool
) -> None:
    if as_json:
        ui.emit_json(fidelity.to_json() if fidelity else {"outputs": list(conversions)})
        return
    first = conversions[0]
    for conversion in conversions:
        ui.emit(f"{conversion['output']}: {ui.format_bytes(conversion['bytes_out'])}")
        for change, count in conversion["requantised"].items():
            ui.emit(f"  {change} in {count} tensors, decoded and encoded anew")
        for change, count in conversion["replaced"].items():
            ui.emit(f"  {change} in {count} tensors, whose rows are not whole blocks")
        for note in conversion["notes"]:
            ui.emit(f"  note: {note}")
    ui.emit(
        f"one pass, {first['seconds']:.1f} s, "
        f"{ui.format_bytes(first['peak_resident_bytes'])} of memory at the peak"
    )
    if fidelity is not None:
        ui.emit()
        shown = fidelity.columns()
        ui.table(list(zip(*shown.values(), strict=True)), [head.upper() for head in shown])
        for line in fidelity.about():
            ui.emit(line)
