"""How ``edgeinfer plan`` shows a survey to people, in 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from edgeinfer.cli import ui

if TYPE_CHECKING:
    from edgeinfer.device import DeviceProfile
    from edgeinfer.planner.plan import Rejection
    from edgeinfer.planner.survey import Row, Survey

Column = tuple[str, Callable[["Row"], str]]


def show(
    survey: Survey,
    shown: Row,
    model: str,
    device: DeviceProfile,
    rejected: Sequence[Rejection],
    *,
    adapters: Sequence[str] = (),
    every: bool,
) -> None:
    """Prints what was surveyed, and the pick.

    Args:
        survey: what was surveyed.
        shown: the row that the cuts go through.
        model: its name.
        device: where it would run.
        rejected: the backends that were not planned for.
        adapters: the options --lora.
        every: print all rows rather than two cuts.
    """
    outline, plan = shown.variant.outline, shown.plan
    config = outline.config
    ui.emit(
        f"{model}: {_count(outline.parameters)} weights, {config.layers} layers, "
        f"trained for {config.context} tokens"
    )
    ui.emit(
        f"{device.name or 'this machine'}: {plan.threads} threads, "
        f"{ui.format_bytes(plan.budget_bytes)} for models"
    )
    ui.emit(textwrap.fill(f"speeds from its ceilings: {survey.ceilings_source}", 100))
    mark: Column = ("", lambda row: ">" if row is survey.pick else "")
    form: list[Column] = [
        ("backend", lambda row: row.plan.backend),
        ("quant", lambda row: ("" if row.variant.is_exact else "~") + row.plan.quant),
    ]
    shape: list[Column] = [
        ("cache", lambda row: row.plan.kv_types),
        ("context", lambda row: f"{row.plan.context:>7}"),
    ]
    against: Column = ("against", lambda row: row.against)
    if every:
        _table(survey.rows, [mark, *form, *shape, *_BYTES, *_SPEEDS, against])
    else:
        ui.emit(f"\nwith {plan.context} tokens of {plan.kv_types} cache")
        same = (plan.context, plan.kv_types)
        rows = [row for row in survey.rows if (row.plan.context, row.plan.kv_types) == same]
        _table(rows, [mark, *form, *_BYTES, *_SPEEDS, against])
        ui.emit(f"\n{plan.backend}, {plan.quant}")
        rows = [row for row in survey.rows if _form(row) == _form(shown)]
        _table(rows, [mark, *shape, *_BYTES, *_SPEEDS, against])
    ui.emit()
    for other in rejected:
        ui.emit(f"not {other.backend}: {other.reason}")
    if not all(row.variant.is_exact for row in survey.rows):
        ui.emit("~ from the file's size; its header was not fetched")
    if plan.reclaimable_bytes:
        taken = ui.format_bytes(plan.reclaimable_bytes)
        ui.emit(f"{taken} of {plan.backend}'s weights are pages of the file, not needed again")
    if plan.adapter_bytes:
        taken = ui.format_bytes(plan.adapter_bytes)
        ui.emit(f"{taken} of {plan.backend}'s weights are of {' and '.join(adapters)}")
    _emit_pick(survey, plan.context, adapters)
    ui.emit("fits" if plan.fits else "does not fit")


def _emit_pick(survey: Survey, context: int, adapters: Sequence[str]) -> None:
    pick = survey.pick
    if pick is None:
        return
    plan = pick.plan
    ui.emit(
        f"pick: {plan.backend}, {plan.quant}, {context} tokens, {plan.kv_types} cache: "
        f"{ui.format_bytes(plan.needed_bytes)} of {ui.format_bytes(plan.budget_bytes)}"
    )
    ui.emit(f"      {pick.variant.how}")
    options = f"--backend {plan.backend} -c {context}"
    if plan.kv_types != "f16":
        options += f" -ctk {plan.kv_type_k} -ctv {plan.kv_type_v}"
    options += "".join(f" --lora {adapter}" for adapter in adapters)
    ui.emit(f"      edgeinfer chat MODEL {options}")


def _form(row: Row) -> tuple[str, str, str]:
    return row.plan.backend, row.plan.quant, row.variant.how


def _table(rows: Iterable[Row], columns: Sequence[Column]) -> None:
    found = list(rows)
    cells = [[text(row) for _, text in columns] for row in found]
    widths = [
        max(len(title), *(len(line[at]) for line in cells)) for at, (title, _) in enumerate(columns)
    ]
    for line in [[title for title, _ in columns], *cells]:
        padded = (
            cell.rjust(width) if title in _RIGHT else cell.ljust(width)
            for cell, width, (title, _) in zip(line, widths, columns, strict=True)
        )
        ui.emit(" ".join(padded).rstrip())


def _size(count: float) -> str:
    """Three digits and a unit: 92.1M, 1.24G."""
    for unit in "KMGT":
        count /= 1024
        if count < 1000 or unit == "T":
            break
    digits = 2 if count < 10 else 1 if count < 100 else 0
    return f"{count:.{digits}f}{unit}"


def _count(number: float) -> str:
    return f"{number / 1e9:.2f} G" if number >= 1e9 else f"{number / 1e6:.1f} M"


def _rate(rate: float | None) -> str:
    if rate is None:
        return "?"
    return f"{rate:.1f}" if rate < 100 else f"{rate:.0f}"


_BYTES: list[Column] = [
    ("weights", lambda row: _size(row.plan.weights_bytes)),
    ("KV", lambda row: _size(row.plan.kv_bytes)),
    ("scratch", lambda row: _size(row.plan.scratch_bytes)),
    ("runtime", lambda row: _size(row.plan.runtime_bytes)),
    ("total", lambda row: _size(row.plan.total_bytes)),
]
_SPEEDS: list[Column] = [
    ("prompt/s", lambda row: _rate(row.plan.prefill_tokens_per_second)),
    ("tokens/s", lambda row: _rate(row.plan.decode_tokens_per_second)),
    ("at end", lambda row: _rate(row.plan.decode_full_tokens_per_second)),
]
_RIGHT = {title for title, _ in (*_BYTES, *_SPEEDS)} | {"context"}
