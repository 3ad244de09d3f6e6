"""Several formats of one source: ``convert_all`` is what ``edgeinfer convert --to A,B`` runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from inspect import signature
from pathlib import Path
from typing import Any

from edgeinfer.errors import NotFoundError, UnsupportedError, UsageError, known_names
from edgeinfer_converters import gguf
from edgeinfer_converters.checkpoint import GgufSource, HuggingFaceSource
from edgeinfer_converters.one_pass import Planned, written
from edgeinfer_converters.pipeline import ConvertReport, Export, ProgressCallback

GROUP = "edgeinfer.exports"


def convert_all(
    source: str | os.PathLike[str],
    targets: Sequence[tuple[str, str | None, Path]],
    *,
    merge_lora: str | os.PathLike[str] | None = None,
    exact: Callable[[Path], None] | None = None,
    progress: ProgressCallback | None = None,
    **options: Any,
) -> list[ConvertReport]:
    """Converts a source to several formats in one pass: all outputs appear, or none.

    Args:
        source: a Hugging Face folder or a GGUF file.
        targets: format, quant type (None for the format's default) and output of each.
        merge_lora: a PEFT adapter to add to the weights.
        exact: called with a GGUF of the source's weights as they are, when all outputs have
            their names; the file is only there meanwhile.
        progress: called after each block of rows.
        options: of the formats; each is given to those that know it.

    Returns:
        A report for each output; their time and memory are those of all together.

    Raises:
        NotFoundError: no such format.
        UnsupportedError: an option that none of the formats knows.
        UsageError: two outputs of one name.
        EdgeInferError: of any output; then none of them appears.
    """
    known = {entry_point.name: entry_point for entry_point in entry_points(group=GROUP)}
    plans: list[Planned] = []
    used: set[str] = set()
    for format_, quant, output in targets:
        if format_ not in known:
            hint = known_names(format_, sorted(known), "installed")
            raise NotFoundError(f"no converter makes {format_!r}", hint=hint)
        export = known[format_].load()
        given = {**options, **({} if quant is None else {"quant": quant})}
        taken = {name: given[name] for name in given if name in signature(export).parameters}
        used.update(taken)
        plans.append(_plan(export, output, taken))
    if len({output.resolve() for *_, output in targets}) < len(targets):
        raise UsageError("two outputs of the same name", hint="ask for each form once")
    for name in options.keys() - used:
        formats = ", ".join(format_ for format_, *_ in targets)
        raise UnsupportedError(
            f"a conversion to {formats} has no option {name!r}", hint="leave it out"
        )
    exacts: list[gguf.GgufExport] = []

    def plan_exact(source: HuggingFaceSource | GgufSource) -> gguf.GgufExport:
        exacts.append(gguf.exact(source, targets[0][2].with_name("exact.gguf")))
        return exacts[0]

    if exact is not None:
        plans.append(plan_exact)  # the last, which never gets its name
    with written(source, plans, merge_lora=merge_lora, progress=progress) as outputs:
        reports = outputs.commit(len(targets))
        if exact is not None:
            exact(exacts[0].preview())
    return reports


def _plan(export: Callable[..., Export], output: Path, options: Mapping[str, Any]) -> Planned:
    def plan(source: HuggingFaceSource | GgufSource) -> Export:
        return export(source, output, **options)

    return plan
