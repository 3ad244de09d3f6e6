"""One pass over a checkpoint of every family: each format keeps the model, on its own backend."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeinfer.cli._program import run
from edgeinfer.errors import UnsupportedError
from edgeinfer.runtime.conversion import convert_all
from support import tiny

pytestmark = [pytest.mark.peer, pytest.mark.slow]

FIRST = {model.name.partition("-")[0]: model for model in reversed(tiny.MODELS)}
BACKENDS = {"gguf": "native", "onnx": "onnx", "mlc": "mlc"}
# Families that are exported for MLC LLM, and for ONNX Runtime.
DENSE = {"llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "olmo2"}
WITH_ONNX = DENSE | {"gpt2", "smollm3", "granite", "starcoder2"}


def formats(family: str) -> list[str]:
    return ["gguf", "onnx", *(["mlc"] if family in DENSE else [])]


def measured(family: str, quant: str, folder: Path, capsys) -> list[dict]:
    source = tiny.write(FIRST[family], folder / "model")
    options = ["-q", quant, "--report", "--report-chunks", "2", "--json"]
    to = formats(family)

    assert run(["convert", str(source), "--to", ",".join(to), "-o", str(folder), *options]) == 0

    outputs = json.loads(capsys.readouterr().out)["outputs"]
    assert [output["not_measured"] for output in outputs] == [None] * len(to)
    found = [output["fidelity"] for output in outputs]
    assert [one["backend"] for one in found] == [BACKENDS[format] for format in to]
    return found


@pytest.mark.parametrize("family", sorted(WITH_ONNX))
def test_floats_keep_everything(family: str, tmp_path: Path, capsys) -> None:
    for found in measured(family, "f32", tmp_path, capsys):
        if (family, found["backend"]) in {("gemma2", "mlc"), ("gemma3", "mlc")}:
            continue  # MLC LLM leaves a soft cap or a rotary base out, which the conversion notes
        assert found["kl_mean"] < 2e-4, found["backend"]
        assert found["top1_agreement"] > 0.97, found["backend"]


@pytest.mark.parametrize("family", sorted(DENSE))
def test_four_bits_are_alike_in_all_formats(family: str, tmp_path: Path, capsys) -> None:
    """GGUF and ONNX have the same blocks; MLC has those also at both ends of a model."""
    gguf, onnx, mlc = measured(family, "int4", tmp_path, capsys)

    assert 0 < gguf["kl_mean"] < 2 and 0 < mlc["kl_mean"] < 2
    assert onnx["kl_mean"] == pytest.approx(gguf["kl_mean"], rel=0.5, abs=0.002)


@pytest.mark.parametrize("family", sorted(FIRST.keys() - DENSE))
def test_what_a_format_has_not_is_refused(family: str, tmp_path: Path) -> None:
    source = tiny.write(FIRST[family], tmp_path / "model")
    for format in {"onnx", "mlc"} - set(formats(family) if family in WITH_ONNX else ()):
        with pytest.raises(UnsupportedError):
            convert_all(source, [("gguf", "q4_0", tmp_path / "g"), (format, None, tmp_path / "o")])
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
