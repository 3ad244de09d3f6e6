"""``edgeinfer eval`` on a small model, its quantised copy, and every backend that is here."""

from __future__ import annotations

import json
import sys

import pytest

from support.whole_model import write_whole_model

PLAIN = {
    "model", "format", "quant", "file_bytes", "backend", "version", "threads", "kv_type_k",
    "kv_type_v", "text", "context", "chunks", "reference", "machine", "edgeinfer", "seconds",
    "tokens_per_second", "tokens", "perplexity", "perplexity_error", "nll", "nll_error", "lora",
}  # fmt: skip
TEXT = "hello, hell: what is the bell that fell in the well? " * 6


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    from edgeinfer_converters.gguf import convert

    folder = tmp_path_factory.mktemp("eval")
    exact = write_whole_model(folder / "exact.gguf")
    convert(exact, folder / "small.gguf", quant="q4_0")
    (folder / "text.txt").write_text(TEXT)
    return {name: str(folder / name) for name in ("exact.gguf", "small.gguf", "text.txt")}


@pytest.fixture
def evaluate(edgeinfer, files, tmp_path, monkeypatch):
    """Runs ``eval`` with the names of ``files`` and returns what it printed and its code."""
    monkeypatch.setenv("EDGEINFER_HOME", str(tmp_path / "home"))

    def run(*arguments: str):
        paths = [files.get(argument, argument) for argument in arguments]
        outcome = edgeinfer("eval", "-f", files["text.txt"], "-c", "32", "--json", *paths)
        return outcome, [json.loads(line) for line in outcome.stdout.splitlines()]

    return run


def test_a_record_says_what_was_measured_and_how(evaluate, files):
    outcome, (record,) = evaluate("exact.gguf", "--backend", "native")

    assert outcome.exit_code == 0
    assert record.keys() == PLAIN
    assert record["tokens"] == record["chunks"] * 15
    assert record["text"]["path"] == files["text.txt"]
    assert record["reference"] is None
    assert record["perplexity"] > 1


def test_a_reference_is_kept_for_the_next_time(evaluate, tmp_path):
    _, (first,) = evaluate("small.gguf", "--reference", "exact.gguf", "--backend", "native")
    (kept,) = (tmp_path / "home" / "references").iterdir()
    written = kept.stat().st_mtime_ns
    _, (again,) = evaluate("small.gguf", "--reference", "exact.gguf", "--backend", "native")

    assert first["kl_mean"] > 1e-3
    assert first["reference"]["backend"] == "native"
    assert again["kl_mean"] == first["kl_mean"]
    assert kept.stat().st_mtime_ns == written


def test_several_models_are_compared_in_every_backend(evaluate):
    from edgeinfer.backends import registry
    from edgeinfer.device.detect import detect

    able = [c.name for c in registry.candidates(detect()) if registry.unfit(c, "gguf") is None]
    _, records = evaluate(
        "exact.gguf", "small.gguf", "--reference", "exact.gguf", "--backend", "all"
    )

    assert [record["backend"] for record in records] == able * 2
    exact, small = records[0], records[len(able)]
    assert exact["kl_mean"] < 1e-6
    assert exact["top1_agreement"] == 1
    assert small["kl_mean"] > 100 * max(record["kl_mean"] for record in records[: len(able)])


def test_a_limit_is_an_exit_code(evaluate):
    arguments = ("small.gguf", "--reference", "exact.gguf", "--backend", "native", "--max-kl")

    assert evaluate(*arguments, "100")[0].exit_code == 0
    outcome, _ = evaluate(*arguments, "1e-4")
    assert outcome.exit_code == 7
    assert "1e-04" in outcome.stderr or "0.0001" in outcome.stderr


def test_a_report_is_a_folder_to_keep(evaluate, tmp_path):
    folder = tmp_path / "report"
    arguments = ("exact.gguf", "small.gguf", "--reference", "exact.gguf", "--backend", "native")
    _, records = evaluate(*arguments, "--report", str(folder))

    assert json.loads((folder / "report.json").read_text()) == records
    page = (folder / "report.md").read_text()
    assert "| small.gguf | native |" in page
    plots = sorted(path.name for path in folder.glob("*.png"))
    assert plots == ["kl_quantiles.png", "perplexity.png", "probability_error.png", "size_kl.png"]
    for plot in plots:
        assert (folder / plot).read_bytes().startswith(b"\x89PNG")
        assert f"({plot})" in page


def test_plots_need_matplotlib_and_a_report_does_not(evaluate, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    folder = tmp_path / "report"
    arguments = ("exact.gguf", "--backend", "native", "--report", str(folder))

    outcome, _ = evaluate(*arguments)
    assert outcome.exit_code == 5
    assert "edgeinfer[report]" in outcome.stderr
    assert not folder.exists()
    assert evaluate(*arguments, "--no-plots")[0].exit_code == 0
    assert sorted(path.name for path in folder.iterdir()) == ["report.json", "report.md"]


def test_people_read_a_table(edgeinfer, files, monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEINFER_HOME", str(tmp_path))
    outcome = edgeinfer(
        "eval", files["small.gguf"], "-f", files["text.txt"], "-c", "32", "--chunks", "2",
        "--reference", files["exact.gguf"], "--backend", "native",
    )  # fmt: skip

    assert outcome.exit_code == 0
    assert "2 chunks of 32 tokens, 30 scored" in outcome.stdout
    assert "KL MEAN" in outcome.stdout and "±" in outcome.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["exact.gguf", "-c", "512"], 2, "less than a chunk"),
        (["exact.gguf", "--max-kl", "1"], 2, "--reference"),
        (["exact.gguf", "--backend", "none"], 3, "no backend"),
        (["nowhere.gguf"], 3, "nowhere.gguf"),
        (["exact.gguf", "-f", "nowhere.txt"], 3, "nowhere.txt"),
        (["exact.gguf", "-f", "/"], 2, "cannot be read"),
        (["exact.gguf", "--report", "text.txt"], 2, "not a folder"),
    ],
)
def test_what_cannot_be_measured_is_said(arguments, code, complaint, evaluate):
    outcome, records = evaluate(*arguments)

    assert outcome.exit_code == code
    assert complaint in outcome.stderr
    assert not any("perplexity" in record for record in records)  # said before measuring


def test_a_reference_of_other_tokens_is_refused_before_it_is_computed(
    evaluate, tmp_path, monkeypatch
):
    from edgeinfer.runtime import evaluation

    def computed(*_, **__):
        raise AssertionError("computed")

    monkeypatch.setattr(evaluation, "reference_logits", computed)
    other = write_whole_model(tmp_path / "other.gguf", merges=2)

    outcome, _ = evaluate("exact.gguf", "--reference", str(other))

    assert outcome.exit_code == 2
    assert "reads other tokens" in outcome.stderr
