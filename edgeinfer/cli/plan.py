"""``edgeinfer plan``: every way to run a model here, what each takes, and which one to take."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import click

from edgeinfer.cli import ui
from edgeinfer.cli._model_options import adapter_option

if TYPE_CHECKING:
    from edgeinfer.device import DeviceProfile
    from edgeinfer.errors import DoesNotFitError
    from edgeinfer.planner.footprint import Predictor
    from edgeinfer.planner.plan import Rejection
    from edgeinfer.planner.survey import Row, Wish
    from edgeinfer.planner.variants import Variant

DEFAULT_CACHE = "f16"


@click.command()
@click.argument("model")
@click.option("-c", "--context", type=int, help="Tokens of context; all usual ones by default.")
@click.option("--memory", metavar="SIZE", help="A budget, such as 2GiB.")
@click.option("--device", "board", metavar="NAME", help="Plan for a device, such as rpi5-8gb.")
@click.option("-q", "--quant", metavar="TYPE", help="Only this quantisation, such as q4_k_m.")
@click.option("--backend", metavar="NAME", help="Only this backend.")
@click.option("-t", "--threads", type=int, help="Compute threads.")
@click.option("-ctk", "--cache-type-k", metavar="TYPE", help="Keys in the KV cache.")
@click.option("-ctv", "--cache-type-v", metavar="TYPE", help="Values in the KV cache.")
@adapter_option
@click.option("--all", "show_all", is_flag=True, help="Print every combination.")
@click.option("--offline", is_flag=True, help="Never ask the network.")
@click.option("--json", "as_json", is_flag=True, help="Print a record with every combination.")
def command(
    model: str,
    context: int | None,
    memory: str | None,
    board: str | None,
    quant: str | None,
    backend: str | None,
    threads: int | None,
    cache_type_k: str | None,
    cache_type_v: str | None,
    lora: tuple[tuple[str, float], ...],
    show_all: bool,
    offline: bool,
    as_json: bool,
) -> None:
    """Show what MODEL takes in memory and how fast it will be, and pick a way to run it.

    Only headers are read; a model of the hub need not be downloaded. The exit code is 4 if
    nothing fits.
    """
    from edgeinfer.cli import _plan_table
    from edgeinfer.formats.adapter import read_header
    from edgeinfer.planner import parse_bytes
    from edgeinfer.planner.survey import Wish, survey

    given = [path if scale == 1 else f"{path}={scale:g}" for path, scale in lora]
    caches = None
    if cache_type_k is not None or cache_type_v is not None:
        caches = (cache_type_k or DEFAULT_CACHE, cache_type_v or DEFAULT_CACHE)
    wish = Wish(
        memory=parse_bytes(memory) if memory is not None else None,
        context=context,
        threads=threads,
        kv_types=caches,
        adapters=tuple(read_header(path) for path, _ in lora),
    )
    device = _device(board)
    variants, format_ = _variants(model, quant, offline=offline)
    backends = _backends(board, backend, format_)
    found = survey(variants, backends.predictors, device, wish)
    least = min(found.rows, key=lambda row: row.plan.needed_bytes)
    refusal = None if found.pick else _refusal(least, backends.predictors, device, wish)
    shown = found.pick or least
    if as_json:
        ui.emit_json(
            shown.to_json()
            | {
                "rejected": [asdict(one) for one in backends.rejected],
                "suggest": refusal.suggest if refusal else None,
                "device": device.name or device.cpu,
                "ceilings": found.ceilings_source,
                "rows": [row.to_json() for row in found.rows],
            }
        )
    else:
        _plan_table.show(
            found, shown, model, device, backends.rejected, adapters=given, every=show_all
        )
    if refusal is not None:
        if not as_json:
            ui.error(refusal.message, refusal.suggest)
        raise click.exceptions.Exit(refusal.exit_code)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Backends:
    """What each backend that could be taken predicts, and why the others could not."""

    predictors: dict[str, Predictor]
    rejected: tuple[Rejection, ...]


def _device(board: str | None) -> DeviceProfile:
    """The machine to plan for, with its ceilings if they are known."""
    from edgeinfer.device import detect, known
    from edgeinfer.device.measured import ceilings

    if board is not None:
        return known.load(board)
    here = detect()
    return replace(here, ceilings=ceilings(here))


def _variants(reference: str, quant: str | None, *, offline: bool) -> tuple[list[Variant], str]:
    """The forms of the model, on disk or else on the hub, and the format that they have."""
    from edgeinfer import store
    from edgeinfer.cli._fetch import fetch
    from edgeinfer.planner.variants import remote_variants, stored_variants
    from edgeinfer.store.peek import peek

    found = store.locate(reference)
    if found is None:
        remote = peek(reference, offline=offline)
        if remote is not None:
            return remote_variants(remote, quant), "gguf"
        found = fetch(reference, offline=offline)
    # A checkpoint is planned for as what it is converted to.
    format_ = "gguf" if found.format == "hf" else found.format
    return stored_variants(found, quant), format_


def _backends(board: str | None, only: str | None, format_: str) -> _Backends:
    """Asks the installed backends; for another device, also those that do not run here."""
    from edgeinfer.backends import registry
    from edgeinfer.device import detect
    from edgeinfer.errors import NotFoundError, UnsupportedError, known_names
    from edgeinfer.planner.plan import Rejection

    found, rejected = {}, []
    for candidate in registry.candidates(detect(), None if only is None else [only]):
        reason = candidate.problem
        if not reason and board is None and not candidate.support.usable:
            reason = candidate.support.reason
        if not reason and format_ not in candidate.backend.formats:
            reason = f"does not read {'GGUF' if format_ == 'gguf' else format_ + ' folders'}"
        predictor = None if reason else registry.predictor(candidate.name)
        if predictor is not None:
            found[candidate.name] = predictor
            continue
        reason = reason or "predicts nothing before it has run"
        rejected.append(Rejection(backend=candidate.name, reason=reason))
    if only is not None and not found and not rejected:
        hint = known_names(only, sorted(registry.installed()), "installed")
        raise NotFoundError(f"no backend is called {only!r}", hint=hint)
    if not found:
        raise UnsupportedError(
            "no backend can be planned for",
            hint="; ".join(f"{one.backend}: {one.reason}" for one in rejected),
        )
    return _Backends(predictors=found, rejected=tuple(rejected))


def _refusal(
    least: Row, predictors: dict[str, Predictor], device: DeviceProfile, wish: Wish
) -> DoesNotFitError:
    """Why not even what takes least fits, and what would."""
    from edgeinfer.errors import DoesNotFitError
    from edgeinfer.planner import plan_model

    try:
        plan_model(
            least.variant.outline,
            device=device,
            memory=wish.memory,
            context=least.plan.context,
            threads=wish.threads,
            kv_type_k=least.plan.kv_type_k,
            kv_type_v=least.plan.kv_type_v,
            backend=least.plan.backend,
            predictor=predictors[least.plan.backend],
            adapters=wish.adapters,
        )
    except DoesNotFitError as error:
        return error
    raise AssertionError("the survey says that it does not fit")
