"""Compiles a library: a job as JSON on standard input, what came of it on standard output."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from edgeinfer.errors import EdgeInferError, UnsupportedError


def main() -> None:
    """Reads a job and does it."""
    job = json.load(sys.stdin)
    try:
        answer = _compile(job)
    except EdgeInferError as error:
        answer = {
            "error": error.message,
            "hint": error.hint,
            "unsupported": isinstance(error, UnsupportedError),
        }
    print(json.dumps(answer))


def _compile(job: dict[str, Any]) -> dict[str, Any]:
    from edgeinfer.backends.mlc.runtime import without_torch
    from edgeinfer.formats.mlc import folder as folders

    with without_torch():
        from edgeinfer.backends.mlc.compiler.model import compile_model

    start = time.perf_counter()
    folder = folders.read(Path(job["folder"]))
    output = Path(job["output"])
    checked = compile_model(folder, job["target"], job["isa"], job["kv_type"], output)
    return {"seconds": time.perf_counter() - start, "checked": checked}


if __name__ == "__main__":
    main()
