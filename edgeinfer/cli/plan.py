"""``edgeinfer plan``: what a model takes, and whether that fits, before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgeinfer.cli import ui
from edgeinfer.cli._model_options import cache_type_options
from edgeinfer.errors import DoesNotFitError

if TYPE_CHECKING:
    from edgeinfer.device import DeviceProfile
    from edgeinfer.planner import MemoryPlan


@click.command()
@click.argument("model")
@click.option("-c", "--context", type=int, help="Tokens of context.")
@click.option("--memory", metavar="SIZE", help="A budget, such as 2GiB.")
@click.option("--device", "board", metavar="NAME", help="Plan for a board, such as rpi5-8gb.")
@click.option("-t", "--threads", type=int, help="Compute threads.")
@cache_type_options
@click.option("--offline", is_flag=True, help="Never ask the network.")
@click.option("--json", "as_json", is_flag=True, help="Print a record.")
def command(
    model: str,
    context: int | None,
    memory: str | None,
    board: str | None,
    threads: int | None,
    cache_type_k: str,
    cache_type_v: str,
    offline: bool,
    as_json: bool,
) -> None:
    """Show what MODEL takes in memory, and whether it fits.

    Only the file's header is read. The exit code is 4 if it does not fit.
    """
    from edgeinfer import device as devices
    from edgeinfer.cli._fetch import fetch_gguf
    from edgeinfer.formats.gguf import open_gguf
    from edgeinfer.planner import parse_bytes, plan_model

    budget = parse_bytes(memory) if memory is not None else None
    device = devices.board(board) if board is not None else devices.detect()
    with open_gguf(fetch_gguf(model, offline=offline).path) as header:

        def plan(refuse: bool) -> MemoryPlan:
            return plan_model(
                header,
                device=device,
                memory=budget,
                context=context,
                threads=threads,
                kv_type_k=cache_type_k,
                kv_type_v=cache_type_v,
                refuse=refuse,
            )

        try:
            chosen, refusal = plan(refuse=True), None
        except DoesNotFitError as error:
            chosen, refusal = plan(refuse=False), error
    if as_json:
        ui.emit_json(chosen.to_json() | {"suggest": refusal.suggest if refusal else None})
    else:
        _show(chosen, device)
    if refusal is not None:
        if not as_json:
            ui.error(refusal.message, refusal.suggest)
        raise click.exceptions.Exit(refusal.exit_code)


def _show(plan: MemoryPlan, device: DeviceProfile) -> None:
    rows = [
        ("weights", plan.weights_bytes, plan.quant),
        ("KV cache", plan.kv_bytes, f"{plan.context} tokens, {plan.kv_types}"),
        ("scratch", plan.scratch_bytes, f"{plan.batch} tokens a step"),
        ("runtime", plan.runtime_bytes, "interpreter, libraries, tokenizer"),
        ("total", plan.total_bytes, f"{plan.backend} backend, {plan.threads} threads"),
        ("available", plan.budget_bytes, device.name or "this machine"),
    ]
    for name, count, text in rows:
        ui.emit(f"{name:10} {ui.format_bytes(count):>10}  {text}")
    speed = plan.decode_tokens_per_second
    if speed:
        ui.emit(f"{'speed':10} {speed:>6.0f}/s     tokens, at most, by memory bandwidth")
    for note in plan.notes:
        ui.note(note)
    ui.emit("fits" if plan.fits else "does not fit")
