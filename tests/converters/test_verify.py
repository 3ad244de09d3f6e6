"""``convert --verify``: conversions broken on purpose, exit code 7, and what was there before."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edgeinfer
from edgeinfer.cli._program import run
from edgeinfer.errors import CheckFailedError, UnsupportedError
from edgeinfer.quant import all_types, get
from edgeinfer.runtime.conversion import native_logits
from edgeinfer_converters import gguf
from edgeinfer_converters.pipeline import Job
from edgeinfer_converters.verify import MOST_ERROR, normal_error
from support import tiny

MODEL = tiny.BY_NAME["qwen2-gqa64-tied"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(MODEL, tmp_path_factory.mktemp("verify") / "model")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A good file where the output is to be."""
    path = tmp_path / "out.gguf"
    path.write_bytes(b"what was there before")
    return path


class Changed:
    """A tensor that is not what its source says."""

    def __init__(self, tensor, change):
        self._tensor, self._change = tensor, change

    def __getattr__(self, name):
        return getattr(self._tensor, name)

    def stored(self, type, first, last):
        return None

    def read(self, first, last):
        return self._change(self._tensor.read(first, last))


def break_jobs(monkeypatch, change) -> None:
    """Changes the jobs of the output; the source laid out for comparison stays."""
    whole = gguf._jobs

    def jobs(*arguments):
        return change(whole(*arguments))

    monkeypatch.setattr(gguf, "_jobs", jobs)


def each(name: str, change):
    def changed(jobs: list[Job]) -> list[Job]:
        return [change(job) if job.tensor.name == name else job for job in jobs]

    return changed


def permuted(job: Job) -> Job:
    return replace(job, tensor=Changed(job.tensor, lambda rows: rows[::-1]))


def scaled(job: Job) -> Job:
    return replace(job, tensor=Changed(job.tensor, lambda rows: rows * np.float32(1.1)))


def dropped(jobs: list[Job]) -> list[Job]:
    return [job for job in jobs if job.tensor.name != "blk.1.ffn_up.weight"]


def of_another_type(job: Job) -> Job:
    return Job(job.tensor, get("q4_0"))


BROKEN = {
    "a permuted tensor": (each("blk.0.attn_q.weight", permuted), "'blk.0.attn_q.weight' (q8_0) is"),
    "a scaled tensor": (each("blk.1.ffn_down.weight", scaled), "blk.1.ffn_down.weight"),
    "a scaled norm": (each("output_norm.weight", scaled), "output_norm.weight"),
    "a missing tensor": (dropped, "'blk.1.ffn_up.weight' is missing"),
}


@pytest.mark.parametrize(("change", "complaint"), BROKEN.values(), ids=BROKEN)
def test_broken_weights_are_found_and_the_old_file_stays(
    change, complaint, folder, old, monkeypatch, capsys
):
    break_jobs(monkeypatch, change)

    code = run(["convert", str(folder), "-q", "q8_0", "-o", str(old), "--verify"])

    assert code == 7
    assert complaint in capsys.readouterr().err
    assert old.read_bytes() == b"what was there before"
    assert list(old.parent.iterdir()) == [old]


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("tokenizer.chat_template", "{{ messages }}", "chat template"),
        ("tokenizer.ggml.bos_token_id", 5, "bos_id"),
        ("tokenizer.ggml.pre", "qwen2", "other tokens"),
        ("qwen2.rope.freq_base", 10001.0, "rope_tables is"),
        ("qwen2.attention.layer_norm_rms_epsilon", 1.01e-6, "norm_eps is"),
        ("qwen2.context_length", 100, "context is"),
    ],
)
def test_broken_metadata_is_found(key, value, complaint, folder, old, monkeypatch, capsys):
    whole = gguf._metadata

    def metadata(source, recipe):
        keys = whole(source, recipe)
        if recipe.name != "f32":  # what the output is compared with
            assert key in keys
            keys[key] = (value, None)
        return keys

    monkeypatch.setattr(gguf, "_metadata", metadata)

    code = run(["convert", str(folder), "-q", "q8_0", "-o", str(old), "--verify"])

    assert code == 7
    assert complaint in capsys.readouterr().err
    assert old.read_bytes() == b"what was there before"
    assert list(old.parent.iterdir()) == [old]


def test_other_logits_are_found(folder, old):
    def forward(path, tokens):
        # The file that is written comes second, after its source in float32.
        logits.append(native_logits(path, tokens) * np.float32(0.1 ** len(logits)))
        return logits[-1]

    logits: list[np.ndarray] = []
    with pytest.raises(CheckFailedError, match="nats from the source's"):
        gguf.convert(folder, old, quant="q8_0", verify=forward)

    assert old.read_bytes() == b"what was there before"
    assert list(old.parent.iterdir()) == [old]


def test_a_good_file_is_written_and_the_worst_tensors_listed(folder, old, capsys):
    code = run(["convert", str(folder), "-q", "q4_k_m", "-o", str(old), "--verify", "--json"])

    report = json.loads(capsys.readouterr().out)
    assert code == 0
    found = report["verification"]
    assert found["tensors"] == report["tensors"]
    assert found["tokens"] == 256
    assert 0 < found["kl_mean"] < found["kl_limit"]
    assert [w["error"] / w["limit"] for w in found["worst"]] == sorted(
        (w["error"] / w["limit"] for w in found["worst"]), reverse=True
    )
    assert edgeinfer.formats.gguf.open_gguf(old).tensors


@pytest.mark.parametrize("model", tiny.MODELS, ids=str)
def test_a_half_of_every_family_is_the_source_to_the_last_bits(model, tmp_path):
    source = tiny.write(model, tmp_path / "model")

    report = edgeinfer.convert(source, quant="f16", output=tmp_path / "out.gguf", verify=True)

    assert report.verification.kl_mean < 1e-6
    assert report.verification.top1_agreement > 0.99


def test_a_gguf_is_verified_against_its_source(folder, tmp_path):
    exact = tmp_path / "exact.gguf"
    edgeinfer.convert(folder, quant="f32", output=exact)

    report = edgeinfer.convert(exact, quant="q8_0", output=tmp_path / "out.gguf", verify=True)

    assert 0 < report.verification.kl_mean < report.verification.kl_limit


@pytest.mark.parametrize("hidden", [False, True], ids=["unnamed", "hidden"])
def test_where_files_cannot_be_unnamed_nothing_stays_either(
    hidden, folder, old, monkeypatch, request
):
    if hidden:
        monkeypatch.delattr("os.O_TMPFILE", raising=False)
    break_jobs(monkeypatch, BROKEN["a permuted tensor"][0])

    with pytest.raises(CheckFailedError):
        edgeinfer.convert(folder, quant="q8_0", output=old, verify=True)

    assert list(old.parent.iterdir()) == [old]


def test_not_every_format_can_be_verified(folder, tmp_path, monkeypatch):
    from edgeinfer.runtime import conversion

    class Plain:
        name = "plain"

        def load(self):
            return lambda source, output: None

    monkeypatch.setattr(conversion, "entry_points", lambda group: [Plain()])

    with pytest.raises(UnsupportedError, match="plain"):
        conversion.convert(folder, "plain", output=tmp_path / "out", verify=True)


@pytest.mark.parametrize("type", all_types(), ids=str)
def test_a_types_error_is_less_than_that_of_a_wrong_tensor(type):
    """A missing tensor is off by 1; real weights may be a little worse than normal ones."""
    assert 1.3 * normal_error(type) < MOST_ERROR < 1
