"""``edgeinfer run``: one prompt, one answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from support.fake_model import fake_model


@pytest.fixture
def echo(use_model, piped):
    """The model repeats the conversation it was given; standard input is empty."""
    use_model(fake_model(lambda asked: asked))
    piped("")


@pytest.mark.parametrize(
    "arguments",
    [
        ["smollm2", "hello", "there"],
        ["-m", "smollm2", "hello", "there"],
        ["smollm2", "-p", "hello there"],
        ["-m", "smollm2", "-p", "hello there"],
    ],
)
def test_the_prompt_from_the_command_line(edgeinfer, echo, arguments):
    outcome = edgeinfer("run", *arguments)

    assert (outcome.exit_code, outcome.stdout) == (0, "[user]hello there\n")


def test_the_parts_of_a_prompt_are_joined(edgeinfer, echo, piped, tmp_path):
    path = tmp_path / "f.txt"
    path.write_text("from a file\n")
    piped("from a pipe\n")

    outcome = edgeinfer("run", "m", "words", "-p", "option", "-f", str(path))

    assert outcome.stdout == "[user]option\n\nwords\n\nfrom a file\n\nfrom a pipe\n"


def test_system_message(edgeinfer, echo):
    assert edgeinfer("run", "m", "hi", "-s", "Be brief.").stdout == "[system]Be brief.[user]hi\n"


def test_raw_leaves_the_template_out(edgeinfer, use_model, piped):
    use_model(fake_model(lambda asked: b"raw: " + asked))
    piped("")

    assert edgeinfer("run", "m", "--raw", "as it is<|answer|>").stdout == "raw: as it is\n"


def test_json_prints_a_record_a_token_and_a_summary(edgeinfer, use_model, piped):
    use_model(fake_model("abc"))
    piped("")

    outcome = edgeinfer("run", "m", "hi", "--json", "--logprobs", "2")

    records = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert [record["text"] for record in records[:-1]] == ["a", "b", "c"]
    assert [record["token"] for record in records[:-1]] == list(b"abc")
    assert all(len(record["top_logprobs"]) == 2 for record in records[:-1])
    assert records[-1]["done"] is True
    assert records[-1]["text"] == "abc"
    assert records[-1]["finish_reason"] == "stop"
    assert records[-1]["new_tokens"] == 3
    assert outcome.stderr == ""


def test_json_errors_are_records_too(edgeinfer, use_model, piped):
    use_model(fake_model(context=10))
    piped("")

    outcome = edgeinfer("run", "m", "x" * 50, "--json")

    assert outcome.exit_code == 1
    assert json.loads(outcome.stdout)["error"]["code"] == "context_full"


@pytest.mark.parametrize(
    ("flag", "value"), [("--stop", "b"), ("-n", "1"), ("--logit-bias", f"{ord('b')}-1000")]
)
def test_sampling_flags_arrive(edgeinfer, use_model, piped, flag, value):
    use_model(fake_model("abc"))
    piped("")

    assert edgeinfer("run", "m", "hi", flag, value).stdout.startswith("a")
    assert "abc" not in edgeinfer("run", "m", "hi", flag, value, "-n", "5").stdout


@pytest.mark.parametrize(
    "arguments",
    [[], ["m"], ["m", "hi", "--raw", "-s", "x"], ["m", "hi", "--logit-bias", "5*2"]],
)
def test_usage_errors(edgeinfer, echo, arguments):
    outcome = edgeinfer("run", *arguments)

    assert outcome.exit_code == 2
    assert outcome.stdout == ""


def test_a_missing_file_is_not_found(edgeinfer, echo):
    assert edgeinfer("run", "m", "-f", "/no/such/file").exit_code == 3


@pytest.mark.parametrize("given", [None, "3"])
def test_another_librarys_threads_are_left_as_they_were(monkeypatch, given):
    """Numpy's alone are held back, and only while it starts."""
    from edgeinfer.cli._model_options import _import_numpy

    name = "OPENBLAS_NUM_THREADS"
    monkeypatch.setenv(name, given) if given else monkeypatch.delenv(name, raising=False)
    _import_numpy()

    assert os.environ.get(name) == given


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_numpy_starts_no_threads():
    script = (
        "import os\nfrom edgeinfer.cli._model_options import _import_numpy\n_import_numpy()\n"
        "print(len(os.listdir('/proc/self/task')))"
    )
    clean = {key: value for key, value in os.environ.items() if key != "OPENBLAS_NUM_THREADS"}
    told = subprocess.run(
        [sys.executable, "-c", script], env=clean, stdout=subprocess.PIPE, text=True
    )

    assert told.stdout == "1\n"
