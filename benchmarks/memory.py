"""The plan's bytes beside the resident peak that the kernel measured, over models and backends.

Each row is a process of its own that fills the context to the last token through the public
interface; its peak is read from the kernel's accounting (VmHWM), which counts the interpreter,
the libraries and the mapped pages of the model's file that were touched.

    python benchmarks/memory.py smollm2 --settings 512/f16 2048/q8_0 8192/q4_0
    python benchmarks/memory.py a.gguf b.gguf --backends native llamacpp --append
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import record

COLUMNS = {
    "model": "s",
    "backend": "s",
    "context": "d",
    "cache": "s",
    "lora": "s",
    "weights": ".0f",
    "kv": ".0f",
    "scratch": ".0f",
    "runtime": ".0f",
    "planned": ".0f",
    "measured": ".0f",
    "error": "+.1%",
}
MIB = 1 << 20

CHILD = """
import json, sys
import edgeinfer
from edgeinfer.device.resident import peak_resident_bytes

path, backend, context, kv = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
model = edgeinfer.load(
    path, context=context, backend=backend, kv_type_k=kv, kv_type_v=kv, lora=sys.argv[5:]
)
word = len(model.tokenizer.encode(" fox fox")) - len(model.tokenizer.encode(" fox"))
done = model.generate(" fox" * ((context - 8) // word - 2), max_tokens=4, temperature=0)
plan = model.plan
print(json.dumps({
    "measured": peak_resident_bytes(), "planned": plan.total_bytes,
    "weights": plan.weights_bytes, "kv": plan.kv_bytes,
    "scratch": plan.scratch_bytes, "runtime": plan.runtime_bytes,
    "reclaimable": plan.reclaimable_bytes, "adapters": plan.adapter_bytes,
    "prompt_tokens": done.timings.prompt_tokens,
}))
"""


def measure(
    model: str, backend: str, context: int, kv: str, lora: Sequence[str] = ()
) -> dict[str, Any]:
    """Runs one process; sizes in MiB."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, model, backend, str(context), kv, *lora],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found = json.loads(done.stdout)
    tokens = found.pop("prompt_tokens")
    return {
        "model": Path(model).stem,
        "backend": backend,
        "context": context,
        "cache": kv,
        "lora": ",".join(Path(path).stem for path in lora),
        "prompt_tokens": tokens,
        **{name: count / MIB for name, count in found.items()},
        "error": found["planned"] / found["measured"] - 1,
    }


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["model"], row["backend"], row["context"], row["cache"], row.get("lora", "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["smollm2"], help="references or GGUF files")
    parser.add_argument("--backends", nargs="+", default=["native", "llamacpp"])
    parser.add_argument(
        "--settings",
        nargs="+",
        default=["512/f16", "2048/q8_0", "8192/f16"],
        metavar="CONTEXT/CACHE",
    )
    parser.add_argument("--lora", nargs="+", default=[], help="GGUF adapters to compute with")
    parser.add_argument("--append", action="store_true", help="keep the rows of earlier runs")
    options = parser.parse_args()

    saved = record.RESULTS / "memory.json"
    rows = json.loads(saved.read_text())["rows"] if options.append and saved.exists() else []
    rows = [{"lora": "", **row} for row in rows]  # earlier ones had none
    for model in options.models:
        for setting in options.settings:
            context, _, kv = setting.partition("/")
            for backend in options.backends:
                row = measure(model, backend, int(context), kv or "f16", options.lora)
                rows = [old for old in rows if _key(old) != _key(row)] + [row]
                print(record.table(rows[-1:], COLUMNS).splitlines()[-1], flush=True)
    print(record.table(rows, COLUMNS))
    worst = max(rows, key=lambda row: abs(row["error"]))
    print(f"{len(rows)} configurations, the worst {worst['error']:+.1%}")
    print(record.save("memory", record.context(["llama-cpp-python"]), rows))


if __name__ == "__main__":
    main()
