"""``edgeinfer calibrate`` and what convert does with it: importance, budgets, dry runs."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from edgeinfer.calibration.text import calibration_text
from edgeinfer.cli import _calibration
from edgeinfer.cli._program import run
from edgeinfer.formats.gguf import open_gguf
from edgeinfer.formats.imatrix import read_imatrix, write_imatrix
from edgeinfer_converters.gguf import convert
from support import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "model"
    return tiny.write(tiny.BY_NAME["llama-gqa64-tied"], path)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(calibration_text()[:6000], encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def imatrix(folder: Path, text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("imatrix")
    convert(folder, made / "model.gguf", quant="f16")
    output = made / "imatrix.gguf"
    code = run(
        [
            "calibrate",
            str(made / "model.gguf"),
            "-f",
            text,
            "-o",
            str(output),
            "-c",
            "64",
            "-t",
            "1",
        ]
    )
    assert code == 0
    return output


def data(path: Path) -> bytes:
    with open_gguf(path) as file:
        return file.data("blk.0.ffn_up.weight").tobytes()


def test_calibrate_says_what_it_read(
    imatrix: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(imatrix.with_name("model.gguf"))
    options = ["-f", text, "-c", "64", "--chunks", "2", "-t", "1", "--json"]
    code = run(["calibrate", model, "-o", str(imatrix.with_name("two.gguf")), *options])

    record = json.loads(capsys.readouterr().out)
    assert code == 0
    assert (record["chunks"], record["chunk_size"]) == (2, 64)
    assert record["tensors"] == len(read_imatrix(imatrix).tensors)


def test_importance_changes_what_is_encoded(folder: Path, imatrix: Path, tmp_path: Path) -> None:
    options = ["-q", "q4_0", "--pure"]
    run(["convert", str(folder), *options, "-o", str(tmp_path / "plain.gguf")])
    code = run(
        [
            "convert",
            str(folder),
            *options,
            "-o",
            str(tmp_path / "w.gguf"),
            "--imatrix",
            str(imatrix),
        ]
    )

    assert code == 0
    assert data(tmp_path / "plain.gguf") != data(tmp_path / "w.gguf")


def test_calibrating_while_converting_is_calibrating_before(
    folder: Path, text: str, tmp_path: Path
) -> None:
    convert(folder, tmp_path / "f16.gguf", quant="f16")
    before, both = tmp_path / "i.gguf", tmp_path / "both.gguf"
    assert run(["calibrate", str(tmp_path / "f16.gguf"), "-f", text, "-o", str(before)]) == 0
    convert(folder, tmp_path / "a.gguf", quant="q4_0", importance=read_imatrix(before).importance())

    assert run(["convert", str(folder), "-q", "q4_0", "-f", text, "-o", str(both)]) == 0
    assert data(both) == data(tmp_path / "a.gguf")


def test_an_imatrix_of_another_model_is_refused(
    folder: Path, imatrix: Path, tmp_path: Path
) -> None:
    matrix = read_imatrix(imatrix)
    narrow = {n: type(s)(s.squares[:, :32], s.counts) for n, s in matrix.tensors.items()}
    other = tmp_path / "other.gguf"
    write_imatrix(other, type(matrix)(tensors=narrow, chunks=1, chunk_size=64))
    output = tmp_path / "out.gguf"

    assert run(["convert", str(folder), "--imatrix", str(other), "-o", str(output)]) == 2
    assert not output.exists()

    strange = {f"x.{name}": sums for name, sums in matrix.tensors.items()}
    write_imatrix(other, type(matrix)(tensors=strange, chunks=1, chunk_size=64))
    for kind in ("gguf", "onnx") if find_spec("onnx_ir") else ("gguf",):
        options = ["--imatrix", str(other), "--to", kind, "-o", str(output)]
        assert run(["convert", str(folder), *options]) == 2
        assert not output.exists()


def test_a_dry_run_prints_the_choices_and_writes_no_model(
    folder: Path, imatrix: Path, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, picture = tmp_path / "out.gguf", tmp_path / "frontier.png"
    options = ["--bpw", "6", "--imatrix", str(imatrix), "-f", text, "--dry-run", "-t", "1"]
    options += ["-o", str(output), "--plot", str(picture), "--types", "q4_0,q5_1,q8_0"]

    assert run(["convert", str(folder), *options]) == 0
    printed = capsys.readouterr().out
    assert run(["convert", str(folder), *options, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)

    assert not output.exists()
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "out.gguf.sensitivity.json").exists()
    assert record["bits_per_weight"] < 6
    for name, choice in record["tensors"].items():
        assert choice["type"] in ("q4_0", "q5_1", "q8_0")
        assert name in printed
    assert "bits a weight" in printed


def test_a_size_is_kept(folder: Path, imatrix: Path, text: str, tmp_path: Path) -> None:
    output = tmp_path / "out.gguf"
    convert(folder, tmp_path / "q5.gguf", quant="q5_1")
    size = (tmp_path / "q5.gguf").stat().st_size
    options = ["--size", str(size), "--imatrix", str(imatrix), "-f", text, "-t", "1"]
    options += ["--tensor-type", "attn_v=q8_0"]

    assert run(["convert", str(folder), "-o", str(output), *options]) == 0
    assert output.stat().st_size <= size
    with open_gguf(output) as file:
        assert file.tensors["blk.0.attn_v.weight"].type == "q8_0"


@pytest.mark.parametrize(
    "options",
    [
        ["--size", "1MB", "--bpw", "4"],
        ["--size", "1MB", "-q", "q4_0"],
        ["--size", "much"],
        ["--bpw", "4", "--to", "onnx"],
        ["--dry-run"],
        ["-c", "100", "--bpw", "4"],
        ["--bpw", "4", "--types", "q9_9"],
        ["--bpw", "nan"],
        ["--bpw", "inf"],
        ["--bpw", "7", "--tensor-type", "*=q8_0"],
        ["--bpw", "7", "--tensor-type", "nothing=q8_0"],
    ],
)
def test_options_that_contradict_each_other_are_refused(
    folder: Path, tmp_path: Path, options: list[str]
) -> None:
    output = tmp_path / "out.gguf"

    assert run(["convert", str(folder), "-o", str(output), *options]) == 2
    assert not output.exists()


@pytest.mark.parametrize(("picture", "code"), [("x.sound", 5), ("nowhere/x.png", 3)])
def test_a_picture_that_cannot_be_drawn_is_refused_before_measuring(
    folder: Path, tmp_path: Path, picture: str, code: int
) -> None:
    state = tmp_path / "state.json"
    options = ["--bpw", "6", "--dry-run", "--state", str(state), "--plot", str(tmp_path / picture)]

    assert run(["convert", str(folder), *options]) == code
    assert not state.exists()


@pytest.mark.parametrize(("output", "code"), [("nowhere/i.gguf", 3), ("", 1)])
def test_calibrate_knows_before_it_reads_that_it_cannot_write(
    output: str,
    code: int,
    imatrix: Path,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_calibration, "collected", lambda *_, **__: pytest.fail("it reads"))
    model = str(imatrix.with_name("model.gguf"))

    assert run(["calibrate", model, "-f", text, "-o", str(tmp_path / output)]) == code


@pytest.mark.parametrize("read", ["model", "text"])
def test_calibrate_does_not_write_over_what_it_reads(
    read: str, imatrix: Path, text: str, tmp_path: Path
) -> None:
    files = {"model": tmp_path / "model.gguf", "text": tmp_path / "text.txt"}
    files["model"].write_bytes(imatrix.with_name("model.gguf").read_bytes())
    files["text"].write_bytes(Path(text).read_bytes())
    before = files[read].read_bytes()
    options = ["-f", str(files["text"]), "-o", str(files[read]), "-c", "64", "--chunks", "1"]

    assert run(["calibrate", str(files["model"]), *options]) == 2
    assert files[read].read_bytes() == before
