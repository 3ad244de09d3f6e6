"""``--backend auto`` beside every backend alone: is what it takes the fastest?

Each backend, and auto with nothing remembered, load the model in this process; then they read a
prompt and generate in turns, round by round. What counts is the time of a turn: a question of 256
tokens and an answer of 128, from the speeds measured. "slower" is auto's time over that of the
best backend alone, the median over the rounds; auto's engine is one of the backends' own, so what
is left when it took the right one is noise. The models' rows are kept in results/choice.json and
replaced one by one, so that a long list can be measured in pieces.

    python benchmarks/choice.py smollm2 llama1b-q4_0.gguf [--rounds 5]
    EDGEINFER_ISA=scalar python benchmarks/choice.py smollm2    # where ours is not the fastest
    python benchmarks/choice.py --table
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import record
from contestants import InProcess

import edgeinfer
from edgeinfer import _native
from edgeinfer.backends import registry
from edgeinfer.device import detect
from edgeinfer.planner.speed import Speed
from edgeinfer.runtime.benchmark import Test

RESULT = record.RESULTS / "choice.json"
ALLOWED = 0.05
AUTO = registry.AUTO
COLUMNS = {
    "model": "s",
    "threads": "d",
    "took": "s",
    "best": "s",
    "best_turn": ".2f",
    "second": "s",
    "auto_turn": ".2f",
    "slower": "+.1%",
    "because": "s",
}


def row(
    rates: Mapping[str, Sequence[Speed]], *, took: str, because: str, **about: Any
) -> dict[str, Any]:
    """What a model's speeds say; ``rates`` has a speed a round, of "auto" and each backend."""
    turns = {name: [speed.turn_seconds for speed in found] for name, found in rates.items()}
    alone = sorted(turns.keys() - {AUTO}, key=lambda name: statistics.median(turns[name]))
    best = alone[0]
    lost = [auto / other - 1 for auto, other in zip(turns[AUTO], turns[best], strict=True)]
    return {
        **about,
        "took": took,
        "because": because,
        "best": best,
        "best_turn": statistics.median(turns[best]),
        "auto_turn": statistics.median(turns[AUTO]),
        "second": ", ".join(f"{name} {statistics.median(turns[name]):.2f}" for name in alone[1:]),
        "slower": statistics.median(lost),
        "rounds": len(lost),
        "rates": {
            name: [{"prefill": s.prefill, "decode": s.decode} for s in found]
            for name, found in rates.items()
        },
    }


def measure(path: str, options: argparse.Namespace) -> dict[str, Any]:
    """Loads the model by auto and by each backend, and times them in turns."""
    loading = {
        "context": options.depth + max(options.prompt, options.new) + 1,
        "threads": options.threads,
        "batch": options.batch,
        "offline": True,
    }
    able = [c.name for c in registry.candidates(detect()) if registry.unfit(c, "gguf") is None]
    models = {}
    for name in (AUTO, *able):  # auto first: it races on a quiet machine
        models[name] = edgeinfer.load(path, backend=name, **loading)
    tests = (
        Test(prompt_tokens=options.prompt, depth=options.depth),
        Test(new_tokens=options.new, depth=options.depth),
    )
    engines = {
        name: InProcess(name, model.open_sequence().engine, model.plan.batch)
        for name, model in models.items()
    }
    rates: dict[str, list[Speed]] = {name: [] for name in engines}
    for engine in engines.values():
        engine.prepare(options.depth)
    for number in range(options.rounds):
        order = [*engines] if number % 2 == 0 else [*reversed(engines)]
        for name in order:
            prefill, decode = (engines[name].sample(test) for test in tests)
            rates[name].append(Speed(prefill=prefill, decode=decode))
    plan = models[AUTO].plan
    label = Path(path).stem + (f" @ d{options.depth}" if options.depth else "")
    if "EDGEINFER_ISA" in os.environ:  # slower kernels of ours, to see auto leave them
        label += f", {_native.isa()} kernels"
    found = row(
        rates, took=plan.backend, because=plan.chosen_because, model=label, threads=plan.threads
    )
    for model in models.values():
        model.close()
    return found | {"commit": record.commit()}


def keep(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Puts rows in the place of older ones of the same model and threads; returns all."""
    rows = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else []
    by_key = {(row["model"], row["threads"]): row for row in (*rows, *found)}
    rows = list(by_key.values())
    record.save("choice", record.context(["edgeinfer", "llama-cpp-python"]), rows)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help="references or GGUF files")
    parser.add_argument("--table", action="store_true", help="print what was measured before")
    parser.add_argument("-t", "--threads", type=int, default=os.cpu_count())
    parser.add_argument("-p", "--prompt", type=int, default=256)
    parser.add_argument("-n", "--new", type=int, default=32)
    parser.add_argument("-d", "--depth", type=int, default=0)
    parser.add_argument("-b", "--batch", type=int, default=512)
    parser.add_argument("-r", "--rounds", type=int, default=5)
    options = parser.parse_args()
    from edgeinfer.store import resolve

    paths = [str(resolve(model).path) for model in options.models]
    with tempfile.TemporaryDirectory() as home:
        os.environ["EDGEINFER_HOME"] = home  # nothing is remembered
        registry.candidates(detect())  # probes are no part of the measurement
        found = []
        for path in paths:
            (Path(home) / "speeds.json").unlink(missing_ok=True)
            found.append(measure(path, options))
    rows = keep(found) if found else json.loads(RESULT.read_text())["rows"]
    print(record.table(rows, COLUMNS))
    worst = max(rows, key=lambda row: row["slower"])
    verdict = "never" if worst["slower"] <= ALLOWED else "NOT never"
    print(f"auto is {verdict} more than {ALLOWED:.0%} slower: {worst['slower']:+.1%} at worst")


if __name__ == "__main__":
    main()
