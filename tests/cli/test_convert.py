"""``edgeinfer convert``: reports, exit codes, and no file where there was an error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeinfer.cli._program import run
from edgeinfer.formats.gguf import open_gguf
from support import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "model"
    return tiny.write(tiny.BY_NAME["qwen2-gqa64-tied"], path)


def test_a_report_is_printed_as_json(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.gguf"

    code = run(["convert", str(folder), "--to", "gguf", "-q", "q8_0", "-o", str(output), "--json"])

    report = json.loads(capsys.readouterr().out)
    assert code == 0
    assert report["output"] == str(output)
    assert report["bytes_out"] == output.stat().st_size
    assert report["bytes_in"] == (folder / "model.safetensors").stat().st_size
    assert report["quant"] == "q8_0"
    assert 8.5 <= report["bits_per_weight"] < 9
    assert report["seconds"] > 0
    assert 20 << 20 < report["peak_resident_bytes"] < 4 << 30


def test_a_summary_is_printed_for_people(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(["convert", str(folder), "-q", "f16", "-o", str(tmp_path / "out.gguf")])

    assert code == 0
    assert "16." in capsys.readouterr().out


def test_the_output_has_a_name_by_default(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert run(["convert", str(folder), "-q", "Q4_0"]) == 0
    assert (tmp_path / "model-q4_0.gguf").exists()


def test_errors_have_their_exit_codes(folder: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "out.gguf")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text('{"architectures": ["FalconForCausalLM"]}')
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{")

    assert run(["convert", str(folder), "-q", "q9_9", "-o", output]) == 2
    assert run(["convert", str(folder), "--to", "elf", "-o", output]) == 3
    assert run(["convert", str(tmp_path / "none"), "-o", output]) == 3
    assert run(["convert", str(foreign), "-o", output]) == 5
    assert run(["convert", str(broken), "-o", output]) == 6
    assert not Path(output).exists()


def test_types_are_overridden_by_pattern_and_replaced_types_are_reported(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.gguf"
    options = ["--tensor-type", "attn_q=q8_0", "--token-embedding-type", "f16"]

    code = run(["convert", str(folder), "-q", "q4_k_s", "-o", str(output), "--json", *options])

    report = json.loads(capsys.readouterr().out)
    assert code == 0
    layers = report["types"]["q8_0"]  # one query matrix each
    assert report["types"]["f16"] == 1
    assert report["replaced"] == {"q4_k -> q5_0": layers}  # ffn_down
    with open_gguf(output) as model:
        assert model.tensors["blk.0.attn_q.weight"].type == "q8_0"


@pytest.mark.parametrize(
    "bad", ["attn_q", "=q8_0", "attn_q=", "attn_q=q9_9", "attnq=q8_0", "(=f16"]
)
def test_an_override_that_makes_no_sense_is_refused(bad: str, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.gguf"

    assert run(["convert", str(folder), "-o", str(output), "--tensor-type", bad]) == 2
    assert not output.exists()
