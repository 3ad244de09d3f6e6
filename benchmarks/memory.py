"""The plan's bytes beside the resident peak that the kernel measured, at several contexts.

Each context runs in a process of its own, filled to the last token; its peak is read from the
kernel's accounting (VmHWM), which counts the interpreter and the libraries too.

    python benchmarks/memory.py [--model FILE.gguf] [--contexts 512 2048 8192]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import record

COLUMNS = {
    "context": "d",
    "planned_mib": ".1f",
    "measured_mib": ".1f",
    "error": "+.1%",
    "weights_mib": ".1f",
    "kv_mib": ".1f",
    "scratch_mib": ".1f",
    "runtime_mib": ".1f",
}
MIB = 1 << 20

CHILD = """
import json, pathlib, re, sys
import edgeinfer

context = int(sys.argv[2])
model = edgeinfer.load(sys.argv[1], context=context, backend="native")  # a race would count
model.generate(" fox" * (context - 8), max_tokens=4, temperature=0)
status = pathlib.Path("/proc/self/status").read_text()
plan = model.plan
print(json.dumps({
    "measured": int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) * 1024,
    "total": plan.total_bytes, "weights": plan.weights_bytes, "kv": plan.kv_bytes,
    "scratch": plan.scratch_bytes, "runtime": plan.runtime_bytes,
}))
"""


def measure(model: str, context: int) -> dict[str, Any]:
    found = json.loads(
        subprocess.run(
            [sys.executable, "-c", CHILD, model, str(context)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
    )
    return {
        "context": context,
        "planned_mib": found["total"] / MIB,
        "measured_mib": found["measured"] / MIB,
        "error": found["total"] / found["measured"] - 1,
        **{f"{p}_mib": found[p] / MIB for p in ("weights", "kv", "scratch", "runtime")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2", help="a reference or a GGUF file")
    parser.add_argument("--contexts", type=int, nargs="+", default=[512, 2048, 8192])
    options = parser.parse_args()

    rows = [measure(options.model, context) for context in options.contexts]
    print(record.table(rows, COLUMNS))
    print(record.save("memory", {**record.context(), "model": Path(options.model).name}, rows))


if __name__ == "__main__":
    main()
