"""The backend ``mlc_llm``: MLC LLM's own engine, here a stand-in with its interface."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

import edgeinfer
from edgeinfer.backends import registry
from edgeinfer.backends.base import Writer
from edgeinfer.cli._program import run
from edgeinfer.device.detect import detect
from edgeinfer.errors import (
    ClosedError,
    ContextFullError,
    CorruptFileError,
    EdgeInferError,
    UnsupportedError,
)
from edgeinfer.types import FinishReason
from edgeinfer_converters.mlc.convert import convert
from support import tiny

STAND_INS = Path(__file__).parents[1] / "support" / "stand_ins"
QUESTION = [{"role": "user", "content": "the cat?"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    convert(tiny.write(tiny.BY_NAME["llama-gqa64-tied"], path / "hf"), path / "mlc")
    return path / "mlc"


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch):
    """MLC LLM as installed, here and in the process that is asked for it."""
    monkeypatch.syspath_prepend(str(STAND_INS))
    for name in ("mlc_llm", "mlc_llm.serve"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import mlc_llm  # type: ignore[import-not-found]

    yield mlc_llm
    for name in ("mlc_llm", "mlc_llm.serve"):
        sys.modules.pop(name, None)


@pytest.fixture
def model(library, folder: Path):
    with edgeinfer.load(folder, backend="mlc_llm", context=64) as loaded:
        yield loaded


def test_without_the_library_it_says_where_to_get_it() -> None:
    (found,) = registry.candidates(detect(), ["mlc_llm"])

    assert not found.support.usable and not found.problem
    assert "mlc_llm cannot be imported" in found.support.reason
    assert "llm.mlc.ai/docs/install" in found.support.reason


def test_a_placeholder_of_its_name_is_not_it(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "mlc_llm.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))

    (found,) = registry.candidates(detect(), ["mlc_llm"])

    assert "no MLCEngine" in found.support.reason


def test_it_is_used_if_it_is_asked_for_and_not_otherwise(library, folder: Path) -> None:
    (found,) = registry.candidates(detect(), ["mlc_llm"])

    assert found.support.usable
    assert "mlc_llm" not in {candidate.name for candidate in registry.candidates(detect())}


def test_a_text_goes_on(model, library) -> None:
    completion = model.generate("the cat sat", temperature=0, max_tokens=20)

    tokens = model.tokenizer.encode("the cat sat")
    assert completion.text == f"{len(tokens)} tokens were read, déjà vu"
    assert completion.finish_reason is FinishReason.STOP
    assert completion.timings.prompt_tokens == len(tokens)
    assert completion.timings.new_tokens == 6
    (engine,) = library.ENGINES[-1:]
    assert (engine.device, engine.mode, engine.most) == ("auto", "interactive", 64)
    request = engine.requests[-1]
    assert request["prompt"] == tokens
    assert (request["temperature"], request["max_tokens"]) == (0, 20)
    assert request["stop"] is None  # stop strings are ours


def test_a_conversation_is_read_through_our_template(model, library) -> None:
    session = model.session()

    answer = "".join(event.text for event in session.send("the cat?"))

    assert library.ENGINES[-1].requests[-1]["prompt"] == model.chat_tokens(QUESTION)
    assert session.messages == [*QUESTION, {"role": "assistant", "content": answer}]
    assert answer.endswith("déjà vu")


def test_sampling_is_handed_on(model, library, caplog: pytest.LogCaptureFixture) -> None:
    model.generate(
        "the", temperature=0.5, top_p=0.7, presence_penalty=1.0, frequency_penalty=-1.0,
        logit_bias={5: -3.0}, seed=7, top_k=3,
    )  # fmt: skip

    request = library.ENGINES[-1].requests[-1]
    assert {key: request[key] for key in ("temperature", "top_p", "seed", "logit_bias")} == {
        "temperature": 0.5,
        "top_p": 0.7,
        "seed": 7,
        "logit_bias": {5: -3.0},
    }
    assert (request["presence_penalty"], request["frequency_penalty"]) == (1.0, -1.0)
    assert "without top_k" in caplog.text


@pytest.mark.parametrize(
    ("options", "text", "reason"),
    [
        ({"max_tokens": 2}, "1 tokens", FinishReason.LENGTH),
        ({"max_tokens": 0}, "", FinishReason.LENGTH),
        ({"stop": ["re read"]}, "1 tokens we", FinishReason.STOP),
        ({"stop": ["vu!"]}, "1 tokens were read, déjà vu", FinishReason.STOP),
    ],
)
def test_why_a_text_ends(options, text, reason, model) -> None:
    completion = model.generate([5], **options)

    assert (completion.text, completion.finish_reason) == (text, reason)


def test_closing_the_stream_ends_the_request(model, library) -> None:
    stream = model.generate([5], stream=True)
    assert next(stream).text == "1"
    stream.close()

    assert library.ENGINES[-1].aborted == [0]
    cancelled = model.generate([5], is_cancelled=lambda: True)
    assert cancelled.finish_reason is FinishReason.CANCELLED
    assert library.ENGINES[-1].aborted == [0, 1]


def test_what_needs_logits_is_refused(model) -> None:
    assert isinstance(model.engine, Writer)
    for ask in (
        lambda: model.logits([5]),
        lambda: model.generate([5], logprobs=3),
        lambda: model.embed(["the cat"]),
    ):
        with pytest.raises(UnsupportedError):
            ask()


def test_errors_of_the_library_are_ours(model, library, folder: Path) -> None:
    with pytest.raises(EdgeInferError, match=r"MLC LLM: Penalty value"):
        model.generate([5], presence_penalty=2.5)
    with pytest.raises(ContextFullError):
        model.generate([5] * 65)


def test_closing_ends_the_engine(library, folder: Path) -> None:
    model = edgeinfer.load(folder, backend="mlc_llm", context=64)
    engine, sequence = model.engine, model.engine.open()
    model.close()

    assert library.ENGINES[-1].terminated
    for call in (engine.open, lambda: engine.close(sequence), lambda: engine.trim(sequence, 0)):
        with pytest.raises(ClosedError):
            call()


def test_a_damaged_folder_is_named(library, folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folder, tmp_path / "mlc")
    (tmp_path / "mlc" / "params_shard_0.bin").write_bytes(b"\0" * 100)

    with pytest.raises(CorruptFileError, match="100 bytes"):
        edgeinfer.load(tmp_path / "mlc", backend="mlc_llm")


def test_what_its_loading_raises_is_told(library, folder: Path, monkeypatch) -> None:
    def fail(*arguments, **options):
        raise RuntimeError("Cannot find library: mlc_runtime")

    monkeypatch.setattr(library, "MLCEngine", fail)

    with pytest.raises(EdgeInferError, match=r"MLC LLM cannot load it: Cannot find library"):
        edgeinfer.load(folder, backend="mlc_llm", context=64)


def test_the_command_line(
    library, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))

    code = run(["run", "-m", str(folder), "--backend", "mlc_llm", "-c", "64", "-p", "the cat?"])

    assert code == 0
    assert "tokens were read, déjà vu" in capsys.readouterr().out
