"""``edgeinfer bench --backend all``: every backend that runs the model, side by side.

Each is timed in a process of its own, so that load time and memory are its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeinfer.cli import _bench_sustained, ui
from edgeinfer.errors import EdgeInferError

if TYPE_CHECKING:
    from edgeinfer.cli._model_options import ModelOptions
    from edgeinfer.runtime.model import Model


def compare(
    options: ModelOptions, models: Sequence[str], exact: str | None, arguments: Sequence[str]
) -> list[dict[str, Any]]:
    """Times models, such as one in several formats, in each backend that reads them.

    Args:
        options: how to load them.
        models: references.
        exact: a model that the divergence is measured from; None for the first model and backend.
        arguments: of ``edgeinfer bench`` beside model and backend.

    Returns:
        Model for model, the backends' records, each with its divergence, best rank first.
    """
    from edgeinfer.backends import registry
    from edgeinfer.cli._fetch import fetch
    from edgeinfer.device.detect import detect

    runs = []
    for model in models:
        stored = fetch(model, offline=options.offline)
        for candidate in registry.candidates(detect()):
            reason = registry.unfit(candidate, stored.format)
            if reason is None:
                runs.append((model, candidate.name))
            elif len(models) == 1:  # of several, each is run by some
                ui.note(f"not {candidate.name}: {reason}")
    records = [_time(model, name, arguments) for model, name in runs]
    if not records:
        raise EdgeInferError(f"no backend here runs {', '.join(models)}")
    _add_divergence(records, options, [model for model, _ in runs], exact)
    return records


def _time(model: str, backend: str, arguments: Sequence[str]) -> dict[str, Any]:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "edgeinfer",
            "bench",
            model,
            *arguments,
            "--backend",
            backend,
            "--json",
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise EdgeInferError(f"the backend {backend} could not be timed; see above")
    (record,) = json.loads(done.stdout)
    return dict(record)


def _add_divergence(
    records: list[dict[str, Any]],
    options: ModelOptions,
    models: Sequence[str],
    exact: str | None,
) -> None:
    from tempfile import TemporaryDirectory

    from edgeinfer.evaluation.run import record as write
    from edgeinfer.evaluation.sample import sample
    from edgeinfer.runtime.evaluation import evaluate

    def opened(backend: str, reference: str) -> Model:
        return replace(options, backend=backend).open(reference)

    first = records[0]["backend"]
    with TemporaryDirectory() as folder:
        with opened("auto" if exact else first, exact or models[0]) as most_exact:
            chunks = sample(most_exact.tokenizer, most_exact.plan.context)
            reference = write(
                most_exact.engine,
                chunks,
                Path(folder, "reference.logits"),
                batch=most_exact.plan.batch,
                about={},
                adapters=most_exact.adapters,
            )
        for record, model in zip(records, models, strict=True):
            with opened(record["backend"], model) as compared:
                record["divergence"] = evaluate(compared, chunks, reference).kl_mean
            record["divergence_from"] = exact or first


def show(records: Sequence[dict[str, Any]]) -> None:
    """The records for people."""
    first = records[0]
    sustained = ["SUSTAINED"] if first["sustained"] else []
    forms = dict.fromkeys((record["model"], record["quant"]) for record in records)
    if len(forms) == 1:
        ui.emit(f"{first['model']}, {first['quant']}, {first['machine']['cpu']}")
    else:
        ui.emit(first["machine"]["cpu"])
        for model, quant in forms:
            ui.emit(f"{quant}: {model}")
    ui.emit()
    tests = [test["test"] for test in first["tests"]]
    rows = [
        (
            record["backend"] + (f" {record['quant']}" if len(forms) > 1 else ""),
            *(
                f"{test['tokens_per_second']:.2f} ± {test['deviation']:.2f}"
                for test in record["tests"]
            ),
            *(_bench_sustained.cell(record["sustained"]) for _ in sustained),
            f"{record['load_seconds']:.2f} s",
            f"{record['first_token_seconds']:.2f} s",
            ui.format_bytes(record["peak_resident_bytes"]),
            f"{record['divergence']:.2g}",
        )
        for record in records
    ]
    ui.table(rows, ("BACKEND", *tests, *sustained, "READY", "FIRST TOKEN", "PEAK", "KL"))
    ui.emit()
    ui.emit(f"KL: nats a token, from {first['divergence_from']}; speeds in tokens per second")
