"""``edgeinfer convert --to A,B``: one pass, a report on each backend, and what errors leave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import edgeinfer
from edgeinfer.cli._program import run
from edgeinfer.cli._several import formats
from edgeinfer.errors import UsageError
from edgeinfer.runtime import fidelity
from support import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "model"
    return tiny.write(tiny.BY_NAME["qwen2-gqa64-tied"], path)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("the cat sat on the mat, the other cat on the rat. " * 100)
    return path


@pytest.mark.parametrize(
    ("to", "quant", "expected"),
    [
        ("gguf", None, [("gguf", None)]),
        ("gguf", "q8_0", [("gguf", "q8_0")]),
        ("gguf:q6_k", None, [("gguf", "q6_k")]),
        ("gguf,onnx", None, [("gguf", "int4"), ("onnx", "int4")]),
        ("gguf:q4_k_m, mlc", "f16", [("gguf", "q4_k_m"), ("mlc", "f16")]),
        ("gguf:q4_0,gguf:q8_0", None, [("gguf", "q4_0"), ("gguf", "q8_0")]),
    ],
)
def test_formats_and_their_types(to: str, quant: str | None, expected: list[object]) -> None:
    assert formats(to, quant) == expected


@pytest.mark.parametrize("to", ["", "gguf,", "gguf:", ":q4_0", "gguf,gguf"])
def test_formats_that_make_no_sense(to: str) -> None:
    with pytest.raises(UsageError):
        formats(to, None)


@pytest.mark.parametrize(
    "formats",
    [
        ("gguf",),
        pytest.param(("gguf", "onnx"), marks=pytest.mark.peer),
        pytest.param(("gguf", "mlc"), marks=pytest.mark.peer),
    ],
)
def test_a_report_is_written_beside_the_outputs_and_shown(
    formats, folder: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    options = ["-q", "f32", "-o", str(out), "--report-text", str(text), "--report-chunks", "2"]
    code = run(["convert", str(folder), "--to", ",".join([*formats, "gguf:q4_0"]), *options])

    shown = capsys.readouterr().out
    assert code == 0
    assert {path.name for path in out.iterdir()} == {
        *(f"model-f32.{format}" for format in formats),
        "model-q4_0.gguf",
        "model.fidelity.json",
        "model.fidelity.md",
    }
    record = json.loads((out / "model.fidelity.json").read_text())
    *exact, small = [output["fidelity"] for output in record["outputs"]]
    own = {"gguf": "native", "onnx": "onnx", "mlc": "mlc"}
    assert [one["backend"] for one in exact] == [own[format] for format in formats]
    for same in exact:
        assert same["kl_mean"] < 1e-4
        assert same["perplexity"] == pytest.approx(same["reference_perplexity"], rel=1e-3)
        assert same["top1_agreement"] > 0.99
    assert small["kl_mean"] > 10 * max(one["kl_mean"] for one in exact)
    assert small["tokens"] == 2 * 255
    table = (out / "model.fidelity.md").read_text()
    for figure in (f"{small['kl_mean']:.6f}", f"{small['perplexity']:.4f}"):
        assert figure in table and figure in shown


def test_the_figures_are_those_of_eval(
    folder: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside an f32 file of the source, with the caches that it has by default."""
    edgeinfer.convert(folder, quant="f32", output=tmp_path / "f32.gguf")
    options = ["--report-text", str(text), "--report-chunks", "2", "--report", "--json"]

    run(["convert", str(folder), "-q", "q4_0", "-o", str(tmp_path / "q4_0.gguf"), *options])
    ours = json.loads(capsys.readouterr().out)["outputs"][0]["fidelity"]
    model, reference = str(tmp_path / "q4_0.gguf"), str(tmp_path / "f32.gguf")
    options = ["-f", str(text), "--reference", reference, "--chunks", "2", "--json"]
    run(["eval", model, *options])
    theirs = json.loads(capsys.readouterr().out)

    assert ours["perplexity"] == theirs["perplexity"]
    assert ours["kl_mean"] == pytest.approx(theirs["kl_mean"], rel=1e-2)
    assert ours["top1_agreement"] == pytest.approx(theirs["top1_agreement"], abs=0.01)


def test_a_format_without_a_backend_is_there_and_not_measured(
    folder: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    whole = fidelity.own_backend

    def none_for_mlc(format: str):
        if format == "mlc":
            raise fidelity.registry.none_fits([], format)
        return whole(format)

    monkeypatch.setattr(fidelity, "own_backend", none_for_mlc)
    options = ["-o", str(tmp_path / "out"), "--report-text", str(text), "--json"]

    code = run(["convert", str(folder), "--to", "gguf,mlc", *options])

    assert code == 0
    gguf, mlc = json.loads(capsys.readouterr().out)["outputs"]
    assert gguf["fidelity"]["kl_mean"] > 0 and gguf["not_measured"] is None
    assert mlc["fidelity"] is None and "'mlc' models" in mlc["not_measured"]
    assert (tmp_path / "out" / "model-int4.mlc" / "tensor-cache.json").is_file()
    assert "not measured: model-int4.mlc" in (tmp_path / "out" / "model.fidelity.md").read_text()


@pytest.mark.peer
def test_chunks_are_as_short_as_the_shortest_context(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """MLC LLM's Gemma 2 has no window, so that its context ends with the model's: 16 tokens."""
    gemma = tiny.write(tiny.BY_NAME["gemma2-gqa64"], tmp_path / "gemma")
    options = ["-o", str(tmp_path / "out"), "--report-text", str(text), "--report-chunks", "1"]

    assert run(["convert", str(gemma), "--to", "gguf,mlc", *options, "--json"]) == 0

    outputs = json.loads(capsys.readouterr().out)["outputs"]
    for found in (output["fidelity"] for output in outputs):
        assert (found["context"], found["chunks"]) == (16, 32)


def test_a_text_that_is_too_short_costs_only_the_report(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("the cat")
    options = ["-o", str(tmp_path / "out"), "--report-text", str(tmp_path / "short.txt")]

    assert run(["convert", str(folder), "--to", "gguf,gguf:q8_0", *options]) == 0

    assert (tmp_path / "out" / "model-int4.gguf").is_file()
    assert "less than a chunk" in (tmp_path / "out" / "model.fidelity.md").read_text()


def test_without_a_report(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)

    code = run(["convert", str(folder), "--to", "gguf:q8_0,mlc", "--no-report", "--json"])

    assert code == 0
    outputs = json.loads(capsys.readouterr().out)["outputs"]
    assert [output["quant"] for output in outputs] == ["q8_0", "q4f16_1"]
    assert {path.name for path in tmp_path.iterdir()} == {"model-q8_0.gguf", "model-int4.mlc"}


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--to", "gguf,elf"], 3),
        (["--to", "gguf,mlc", "-q", "int8"], 2),
        (["--to", "gguf,mlc", "--verify"], 2),
        (["--to", "gguf,mlc", "--size", "1MB"], 2),
        (["--to", "gguf,onnx", "--mlc-mode", "mlc"], 2),
        (["--to", "gguf,mlc", "--pure"], 2),
    ],
)
def test_errors_leave_no_folder(
    options: list[str], code: int, folder: Path, tmp_path: Path
) -> None:
    assert run(["convert", str(folder), "-o", str(tmp_path / "out"), *options]) == code

    assert not (tmp_path / "out").exists()
