"""Is our perplexity that of llama-perplexity, and how long do both take?

The same file, the same text, the same chunks. A file of floats is computed alike, so the values
have to agree; of a quantised one each engine rounds activations in its own way, and the perplexity
of the f16 file says which is nearer.

    python benchmarks/perplexity.py --llama-perplexity PATH --text FILE MODEL.gguf...
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import record

COLUMNS = {
    "model": "s",
    "perplexity": ".4f",
    "peer_perplexity": ".4f",
    "difference": "+.3%",
    "seconds": ".2f",
    "peer_seconds": ".2f",
    "speedup": ".2f",
}


def output(command: list[str]) -> tuple[str, float]:
    """What a process prints, and its seconds."""
    start = time.perf_counter()
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.stdout, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--llama-perplexity", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--chunks", type=int, default=8)
    options = parser.parse_args()

    rows = []
    for model in options.models:
        same = ["-f", str(options.text), "--chunks", str(options.chunks), "-t", str(os.cpu_count())]
        ours = [sys.executable, "-m", "edgeinfer", "eval", str(model), *same]
        said, seconds = output([*ours, "--backend", "native", "--json"])
        found = json.loads(said.splitlines()[-1])
        said, peer_seconds = output([str(options.llama_perplexity), "-m", str(model), *same])
        final = re.search(r"Final estimate: PPL = ([\d.]+)", said)
        assert final, said
        peer = float(final[1])
        rows.append(
            {
                "model": model.name,
                "tokens": found["tokens"],
                "perplexity": found["perplexity"],
                "peer_perplexity": peer,
                "difference": found["perplexity"] / peer - 1,
                "seconds": seconds,
                "peer_seconds": peer_seconds,
                "speedup": peer_seconds / seconds,
            }
        )
    print(record.table(rows, COLUMNS))
    print(record.save("perplexity", {**record.context(), "chunks": options.chunks}, rows))


if __name__ == "__main__":
    main()
