"""Measured mixes beside llama-quantize's, at the same size, with the same importance matrix.

For each of llama-quantize's mixes: the file that it writes with an importance matrix of ours, and
the mix that edgeinfer measures for a file of that size; the divergence of both from the f16 model
on text that neither has seen, run by our engine (and, asked for, by llama.cpp). Then what the
importance matrix does for recipes.

    python benchmarks/budget.py F16.gguf CALIBRATION.txt HELD_OUT.txt --llama-quantize PATH
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import record

import edgeinfer
from edgeinfer.calibration.collect import collect
from edgeinfer.calibration.mix import READ, find_mix
from edgeinfer.calibration.opened import open_model
from edgeinfer.calibration.target import Target
from edgeinfer.evaluation.chunks import Chunks
from edgeinfer.evaluation.compact import ReferenceLogits
from edgeinfer.evaluation.measures import Measures
from edgeinfer.formats.gguf import open_gguf
from edgeinfer.formats.imatrix import ImportanceMatrix, write_imatrix
from edgeinfer.quant import all_types
from edgeinfer.quant.assignment import Overrides, has_choice
from edgeinfer.runtime.evaluation import evaluate, reference_logits, text_chunks

MIXES = ("Q4_K_M", "Q3_K_M", "Q2_K")
COLUMNS = {
    "model": "s", "mix": "s", "backend": "s", "types": "s",
    "bytes_theirs": ",d", "bytes_ours": ",d",
    "kl_theirs": ".5f", "kl_ours": ".5f", "error": ".5f", "less": ".1%",
}  # fmt: skip
WEIGHED = ("iq3_s", "iq3_m", "q2_k", "q3_k_s", "q3_k_m", "iq4_xs", "q4_0", "q4_k_m", "q5_k_m")
WEIGHED_COLUMNS = {
    "model": "s", "quant": "s", "bytes": ",d", "tokens": "d",
    "kl_plain": ".5f", "error_plain": ".5f", "kl_weighted": ".5f", "error_weighted": ".5f",
    "less": ".1%",
}  # fmt: skip


class Bench:
    """One model, its texts, and the files made of it."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.source, self.folder = arguments.model, folder
        self.threads, self.chunks = arguments.threads, arguments.chunks
        self.read = arguments.read
        self.quantize, self.state = arguments.llama_quantize, arguments.state
        self.text = arguments.text.read_text(encoding="utf-8")
        self.held_out = arguments.held_out.read_text(encoding="utf-8")
        self.references: dict[str, tuple[Chunks, ReferenceLogits]] = {}
        self.matrix = self.importance()

    def importance(self) -> ImportanceMatrix:
        """Collects it, and leaves it for llama-quantize."""
        with open_model(self.source, context=512, threads=self.threads) as opened:
            chunks = text_chunks(opened.tokenizer, self.text, limit=64)
            matrix = collect(opened.engine, opened.matrices, chunks)
        write_imatrix(self.folder / "imatrix.gguf", matrix)
        return matrix

    def theirs(self, mix: str) -> Path:
        """What llama-quantize writes."""
        path = self.folder / f"theirs-{mix}.gguf"
        imatrix = ["--imatrix", str(self.folder / "imatrix.gguf")]
        command = [str(self.quantize), *imatrix, str(self.source), str(path), mix, "1"]
        subprocess.run(command, check=True, capture_output=True)
        return path

    def ours(self, size: int, types: list[str]) -> tuple[Path, float]:
        """The mix for a size: its file, and the divergence it should have."""
        path = self.folder / f"ours-{size}.gguf"
        mix = find_mix(
            self.source,
            Target(size=size),
            self.text,
            self.matrix.importance(),
            types=[t for t in all_types() if t.name in types],
            state=self.state,
            read=self.read,
            threads=self.threads,
        )
        edgeinfer.convert(
            self.source,
            quant=mix.recipe,
            output=path,
            overrides=mix.overrides(),
            importance=self.matrix.importance(),
        )
        assert path.stat().st_size <= size
        counts = Counter(o.type for o in mix.chosen.values())
        print(f"  predicted {mix.divergence:.5f}; {dict(counts.most_common())}", flush=True)
        return path, mix.divergence

    def measures(self, path: Path, backend: str = "native") -> Measures:
        """How far a file is from the source on the held-out text."""

        def load(file: Path) -> edgeinfer.Model:
            return edgeinfer.load(file, backend=backend, context=512, threads=self.threads)

        with load(path) as model:
            if backend not in self.references:
                chunks = text_chunks(model.tokenizer, self.held_out, limit=self.chunks)
                key = {"file": str(self.source), "at": time.time()}
                reference = reference_logits(
                    lambda: load(self.source), chunks, key, folder=self.folder
                )
                self.references[backend] = chunks, reference
            return evaluate(model, *self.references[backend])


def beside_llama_quantize(bench: Bench, model: str, backends: list[str]) -> list[dict[str, Any]]:
    every = [t.name for t in all_types() if not t.is_float]
    lists = {"all": every, "but q4_1, q5_1": [t for t in every if t not in ("q4_1", "q5_1")]}
    rows = []
    for mix in MIXES:
        theirs = bench.theirs(mix)
        size = theirs.stat().st_size
        before = {backend: bench.measures(theirs, backend) for backend in backends}
        for label, types in lists.items():
            ours, predicted = bench.ours(size, types)
            for backend in backends:
                after = bench.measures(ours, backend)
                rows.append(
                    {
                        "model": model,
                        "mix": mix,
                        "backend": backend,
                        "types": label,
                        "bytes_theirs": size,
                        "bytes_ours": ours.stat().st_size,
                        "kl_theirs": before[backend].kl_mean,
                        "kl_theirs_error": before[backend].kl_mean_error,
                        "kl_ours": after.kl_mean,
                        "error": after.kl_mean_error,
                        "predicted": predicted,
                        "less": 1 - (after.kl_mean or 0) / (before[backend].kl_mean or 1),
                        "tokens": after.tokens,
                    }
                )
                print(record.table(rows[-1:], COLUMNS).splitlines()[-1], flush=True)
    return rows


def with_importance(bench: Bench, model: str) -> list[dict[str, Any]]:
    """Recipes with and without the importance matrix, tensor by tensor in the same types.

    The types are those of the mix with importance; without it, llama-quantize's mixes of q4_0 and
    iq4_xs give some matrices of the first layers other ones.
    """
    rows = []
    for quant in WEIGHED:
        row: dict[str, Any] = {"model": model, "quant": quant}
        overrides = None
        for name, importance in (("weighted", bench.matrix.importance()), ("plain", None)):
            path = bench.folder / f"{quant}-{name}.gguf"
            edgeinfer.convert(
                bench.source, quant=quant, output=path, importance=importance, overrides=overrides
            )
            row["bytes"] = path.stat().st_size
            found = bench.measures(path)
            row |= {f"kl_{name}": found.kl_mean, f"error_{name}": found.kl_mean_error}
            row["tokens"] = found.tokens
            overrides = types_of(path)
            path.unlink()
        rows.append(row | {"less": 1 - row["kl_weighted"] / row["kl_plain"]})
        print(record.table(rows[-1:], WEIGHED_COLUMNS).splitlines()[-1], flush=True)
    return rows


def types_of(path: Path) -> Overrides:
    """The types that a file's matrices have, as ``convert`` takes them."""
    with open_gguf(path) as file:
        return Overrides(
            tensors=tuple(
                (f"^{re.escape(name)}$", info.type)
                for name, info in file.tensors.items()
                if has_choice(name, info.shape)
            )
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path, help="GGUF in f16")
    parser.add_argument("text", type=Path, help="to calibrate on")
    parser.add_argument("held_out", type=Path, help="to evaluate on")
    parser.add_argument("--llama-quantize", type=Path, required=True)
    parser.add_argument("--chunks", type=int, default=24)
    parser.add_argument("--read", type=int, default=READ, help="pieces to measure effects on")
    parser.add_argument("--backends", nargs="+", default=["native"])
    parser.add_argument("--state", type=Path, help="keeps what was measured")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--name", default="")
    parser.add_argument("--part", choices=["mixes", "importance", "all"], default="all")
    arguments = parser.parse_args()
    name = arguments.name or arguments.model.stem
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(arguments, Path(folder))
        about = record.context(["llama-cpp-python"]) | {"chunks": arguments.chunks}
        if arguments.part != "importance":
            rows = beside_llama_quantize(bench, name, arguments.backends)
            print(record.table(rows, COLUMNS))
            record.save(f"budget_{name}", about, rows)
        if arguments.part != "mixes":
            record.save(f"imatrix_{name}", about, with_importance(bench, name))


if __name__ == "__main__":
    main()
