"""The options of convert that ask for a size instead of a type, and what they do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgeinfer.cli import ui
from edgeinfer.errors import UsageError

if TYPE_CHECKING:
    from edgeinfer.calibration.mix import Mix
    from edgeinfer.formats.imatrix import ImportanceMatrix
    from edgeinfer.quant.assignment import Overrides

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--budget",
        metavar="SIZE",
        help="Measure each matrix and mix types so that running takes at most so much memory "
        "(weights, cache, scratch, runtime), such as 1.2GiB, with -c tokens.",
    ),
    click.option("--size", metavar="SIZE", help="The same for the file's size, such as 900MB."),
    click.option("--bpw", type=click.FloatRange(min=1), help="The same for bits a weight."),
    click.option(
        "-c", "--context", type=click.IntRange(min=1),
        help="Tokens that --budget means; with --to onnx, tokens that the model will be able to "
        "read, by default the trained context up to 32768.",
    ),
    click.option("--types", metavar="TYPE,TYPE,...", help="To mix; by default all."),
    click.option(
        "--sensitivity-chunks", type=click.IntRange(min=1), default=4, show_default=True,
        help="Pieces of 256 tokens that each matrix's effect is measured on.",
    ),
    click.option(
        "--state", type=click.Path(path_type=Path),
        help="Where measurements are kept, for a run that was broken off or another size; by "
        "default beside the output.",
    ),
    click.option("--plot", type=click.Path(path_type=Path), help="Draw size against divergence."),
    click.option("--dry-run", is_flag=True, help="Only print what would be chosen."),
)  # fmt: skip


def mix_options(command: F) -> F:
    """Adds the options; the command gets them by name."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True, kw_only=True)
class MixOptions:
    """The options by name."""

    budget: str | None
    size: str | None
    bpw: float | None
    context: int | None
    types: str | None
    sensitivity_chunks: int
    state: Path | None
    plot: Path | None
    dry_run: bool

    def __post_init__(self) -> None:
        """Checks what goes together."""
        given = sum(option is not None for option in (self.budget, self.size, self.bpw))
        if given > 1:
            raise UsageError("--budget, --size and --bpw are three ways to say one thing")
        if not given and (self.dry_run or self.plot or self.types or self.state):
            raise UsageError(
                "--dry-run, --plot, --types and --state are about a mix",
                hint="say how large with --budget, --size or --bpw",
            )

    @property
    def wanted(self) -> bool:
        """Whether there is anything to measure."""
        return self.budget is not None or self.size is not None or self.bpw is not None


def measured(
    source: Path,
    options: MixOptions,
    *,
    state: Path,
    imatrix: Path | None,
    text_file: Path | None,
    fixed: Overrides,
    threads: int | None,
) -> tuple[Mix, ImportanceMatrix]:
    """Collects importance unless it is given, measures the matrices and finds the mix."""
    from edgeinfer.calibration.mix import find_mix
    from edgeinfer.calibration.plot import check_drawable, plot_frontier
    from edgeinfer.calibration.sources import as_gguf
    from edgeinfer.calibration.target import Target
    from edgeinfer.calibration.text import calibration_text, read_text
    from edgeinfer.cli._calibration import collected
    from edgeinfer.formats.imatrix import read_imatrix
    from edgeinfer.planner import parse_bytes
    from edgeinfer.quant import get

    if options.plot:
        check_drawable(options.plot)
    text = read_text(text_file) if text_file else calibration_text()
    target = Target(
        size=parse_bytes(options.size) if options.size else None,
        bits=options.bpw,
        memory=parse_bytes(options.budget) if options.budget else None,
        context=options.context,
    )
    types = [get(name.strip()) for name in options.types.split(",")] if options.types else None
    with as_gguf(source, exact=True) as path:
        matrix = read_imatrix(imatrix) if imatrix else collected(path, text_file, threads=threads)
        with ExitStack() as stack:
            bar: ui.Progress | None = None

            def show(name: str, done: int, total: int) -> None:
                nonlocal bar
                if bar is None:
                    bar = stack.enter_context(ui.progress("measuring", total, unit=" weights"))
                bar.describe(name)
                bar.to(done)

            mix = find_mix(
                path,
                target,
                text,
                matrix.importance(),
                types=types,
                fixed=fixed,
                state=options.state or state,
                read=options.sensitivity_chunks,
                threads=threads,
                progress=show,
            )
    if options.plot:
        plot_frontier(mix, options.plot, title=source.resolve().name)
    return mix, matrix


def show_choices(mix: Mix) -> None:
    """Prints the table of a dry run."""
    rows = [
        (name, mix.weights[name], option.type, option.nbytes, f"{option.loss:.2e}")
        for name, option in mix.chosen.items()
    ]
    ui.table(rows, ("matrix", "weights", "type", "bytes", "divergence"))
    ui.emit(
        f"{ui.format_bytes(sum(o.nbytes for o in mix.chosen.values()))} of matrices, "
        f"{mix.bits_per_weight:.2f} bits a weight, "
        f"divergence {mix.divergence:.4f} nats a token (predicted)"
    )


def choices_record(mix: Mix) -> dict[str, Any]:
    """What --dry-run --json prints."""
    return {
        "bits_per_weight": mix.bits_per_weight,
        "divergence": mix.divergence,
        "tensors": {
            name: {"type": o.type, "bytes": o.nbytes, "divergence": o.loss}
            for name, o in mix.chosen.items()
        },
        "frontier": [{"bytes": size, "divergence": kl} for size, kl in mix.frontier],
    }
