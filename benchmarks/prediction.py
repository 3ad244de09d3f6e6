"""Predicted speeds beside measured ones: what `edgeinfer plan` says, held against the engine.

The ceilings that a prediction is made from are measured right before and after each sample, in
the same process, because the machine may change from minute to minute; predicted and measured
speeds are medians over the rounds, and the error is that of the median ratio.

    python benchmarks/prediction.py smollm2 llama1b-q4_0.gguf --depths 0 4096
    python benchmarks/prediction.py qwen4b-q4_k.gguf --append
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import record

import edgeinfer
from edgeinfer import store
from edgeinfer.backends import registry
from edgeinfer.device import ceilings
from edgeinfer.device.ceilings import Ceilings, CeilingsByThreads
from edgeinfer.formats.gguf import open_gguf
from edgeinfer.planner import costs
from edgeinfer.planner.outline import Outline
from edgeinfer.planner.roofline import Forecast, forecast, limits_of
from edgeinfer.runtime.benchmark import Bench, Test

PROMPT, NEW = 512, 16
COLUMNS = {
    "model": "s",
    "backend": "s",
    "test": "s",
    "stream": ".0f",
    "peak": ".0f",
    "predicted": ".1f",
    "measured": ".1f",
    "error": "+.1%",
}


def measure(
    path: Path, backend: str, depths: list[int], rounds: int, prefill: bool
) -> Iterator[dict[str, Any]]:
    """Yields a row for each depth of decoding, and one for a prompt."""
    model = edgeinfer.load(path, backend=backend, context=max(depths) + PROMPT, offline=True)
    with open_gguf(path) as file:
        outline = Outline.of_gguf(file)
    plan = model.plan
    engine = model.open_sequence().engine
    bench = Bench(engine, batch=plan.batch)
    predictor = registry.predictor(backend)
    assert predictor is not None
    pace = predictor.pace(outline)

    def predicted(limits: Ceilings, depth: int) -> Forecast:
        known = CeilingsByThreads(points=(limits,), source="measured beside")
        bounds = limits_of(known, plan.threads, plan.batch_threads or plan.threads)
        kv = costs.kv_bytes(outline.config, depth or 1, plan.kv_type_k, plan.kv_type_v)
        return forecast(outline, pace, bounds, depth or 1, kv)

    tests = [Test(new_tokens=NEW, depth=depth) for depth in sorted(depths)]
    tests += [Test(prompt_tokens=PROMPT)] if prefill else []
    for test in tests:
        bench.warm_up(test)
        found: list[tuple[float, float, Ceilings]] = []
        for _ in range(rounds):
            before = ceilings.measure(plan.threads, 0.2)
            rate = test.tokens / bench.seconds(test)
            after = ceilings.measure(plan.threads, 0.2)
            limits = Ceilings(
                threads=plan.threads,
                stream_bytes_per_second=(
                    before.stream_bytes_per_second + after.stream_bytes_per_second
                )
                / 2,
                int8_macs_per_second=(before.int8_macs_per_second + after.int8_macs_per_second) / 2,
            )
            speeds = predicted(limits, test.depth)
            said = speeds.decode_full if test.depth else speeds.decode
            if test.prompt_tokens:
                said = predicted(limits, PROMPT).prefill
            found.append((said, rate, limits))
        yield {
            "model": path.stem,
            "backend": backend,
            "test": test.name,
            "stream": statistics.median(c.stream_bytes_per_second for *_, c in found) / 1e9,
            "peak": statistics.median(c.int8_macs_per_second for *_, c in found) / 1e9,
            "predicted": statistics.median(said for said, *_ in found),
            "measured": statistics.median(rate for _, rate, _ in found),
            "error": statistics.median(said / rate for said, rate, _ in found) - 1,
            "errors": [said / rate - 1 for said, rate, _ in found],
            "streams": [c.stream_bytes_per_second / 1e9 for *_, c in found],
        }
    engine.shutdown()


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return row["model"], row["backend"], row["test"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["smollm2"], help="references or GGUF files")
    parser.add_argument("--backend", default="native")
    parser.add_argument("--depths", type=int, nargs="+", default=[0])
    parser.add_argument("-r", "--rounds", type=int, default=5)
    parser.add_argument("--prefill", action="store_true", help="a prompt as well")
    parser.add_argument("--append", action="store_true", help="keep the rows of earlier runs")
    options = parser.parse_args()

    saved = record.RESULTS / "prediction.json"
    rows = json.loads(saved.read_text())["rows"] if options.append and saved.exists() else []
    for reference in options.models:
        path = store.resolve(reference).path
        for row in measure(path, options.backend, options.depths, options.rounds, options.prefill):
            rows = [old for old in rows if _key(old) != _key(row)] + [row]
            print(record.table([row], COLUMNS).splitlines()[-1], flush=True)
    print(record.table(rows, COLUMNS))
    generating = [
        row for row in rows if row["test"].startswith("tg") and row["backend"] == "native"
    ]
    worst = max(generating or rows, key=lambda row: abs(row["error"]))
    print(
        f"the worst of generating, native: {worst['error']:+.1%}, {worst['model']} {worst['test']}"
    )
    print(record.save("prediction", record.context(["llama-cpp-python"]), rows))


if __name__ == "__main__":
    main()
