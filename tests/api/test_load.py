"""``load`` on a real file: the whole way from a reference to an answer, on the native engine."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import edgeinfer
from support.whole_model import write_whole_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A random model with a tokenizer, as GGUF."""
    from support import tiny as models

    folder = tmp_path_factory.mktemp("load")
    chosen = next(model for model in models.MODELS if model.name == "llama-gqa64-tied")
    models.write(chosen, folder / "hf")
    edgeinfer.convert(folder / "hf", to="gguf", quant="q8_0", output=folder / "tiny.gguf")
    return folder / "tiny.gguf"


@pytest.fixture
def model(tiny):
    with edgeinfer.load(tiny, threads=2, context=128) as model:
        yield model


def test_a_loaded_model_says_how_it_runs(model, tiny):
    assert model.backend == "native"
    assert (model.plan.context, model.plan.threads) == (128, 2)
    assert model.plan.fits
    assert model.path == str(tiny)


def test_generating_is_argmax_of_the_logits_at_temperature_0(model):
    tokens = model.tokenizer.encode("some text")
    completion = model.generate("some text", max_tokens=8, temperature=0, logit_bias={})

    text = list(tokens)
    for token in completion.tokens:
        assert int(model.logits(text)[-1].argmax()) == token
        text.append(token)


def test_a_seed_reproduces(model):
    runs = {model.generate("abc", max_tokens=12, temperature=1, seed=4).tokens for _ in range(3)}

    assert len(runs) == 1


def test_embeddings_come_of_the_engine(model):
    vectors = model.embed(["one", "two"])

    assert vectors.shape[0] == 2
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1], abs=1e-5)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


def test_two_models_live_side_by_side(tiny):
    with edgeinfer.load(tiny, context=64) as one, edgeinfer.load(tiny, context=128) as two:
        tokens = one.tokenizer.encode("hello")
        np.testing.assert_array_equal(one.logits(tokens), two.logits(tokens))
        one.close()
        assert two.generate("hello", max_tokens=3).tokens


def test_what_does_not_fit_is_refused_before_it_is_loaded(tiny, monkeypatch):
    from edgeinfer.backends.native import NativeBackend

    monkeypatch.setattr(NativeBackend, "load", lambda *a: pytest.fail("allocated"))

    with pytest.raises(edgeinfer.DoesNotFitError) as caught:
        edgeinfer.load(tiny, memory="1MiB")
    assert caught.value.need_bytes > caught.value.have_bytes == 1 << 20


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"context": 0}, edgeinfer.UsageError),
        ({"context": 1 << 30}, edgeinfer.UsageError),
        ({"threads": 0}, edgeinfer.UsageError),
        ({"kv_type_v": "q3"}, edgeinfer.UsageError),
        ({"memory": "lots"}, edgeinfer.UsageError),
        ({"backend": "abacus"}, edgeinfer.NotFoundError),
    ],
)
def test_senseless_arguments(tiny, arguments, error):
    with pytest.raises(error):
        edgeinfer.load(tiny, **arguments)


def test_a_checkpoint_is_told_to_be_converted(tiny):
    with pytest.raises(edgeinfer.UnsupportedError) as caught:
        edgeinfer.load(tiny.parent / "hf")
    assert "edgeinfer convert" in caught.value.hint


def test_a_file_cut_off_is_corrupt(tiny, tmp_path):
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny.read_bytes()[:-1000])

    with pytest.raises(edgeinfer.CorruptFileError, match=r"cut\.gguf"):
        edgeinfer.load(cut)


def test_a_file_that_shrinks_between_plan_and_load_is_corrupt(tiny, tmp_path, monkeypatch):
    from edgeinfer.backends import native

    path = tmp_path / "shrinks.gguf"
    path.write_bytes(tiny.read_bytes())
    sources = native.tensor_sources

    def cut_then(*args):
        found = sources(*args)
        os.truncate(path, path.stat().st_size - 1000)
        return found

    monkeypatch.setattr(native, "tensor_sources", cut_then)
    with pytest.raises(edgeinfer.CorruptFileError, match="leaves the file"):
        edgeinfer.load(path)


def test_python_runs_while_the_engine_computes(model):
    """The GIL is free during a step: another thread counts meanwhile."""
    counted, done = 0, threading.Event()

    def count():
        nonlocal counted
        while not done.is_set():
            counted += 1
            time.sleep(0)

    tokens = model.tokenizer.encode("x " * 40)[:100]
    counter = threading.Thread(target=count)
    started = time.perf_counter()
    counter.start()
    while time.perf_counter() - started < 0.5:
        model.logits(tokens)
    done.set()
    counter.join()

    assert counted > 100


def in_child(function) -> str:
    """Runs a function in a forked child and returns what it returned."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe()
    child = context.Process(target=lambda: sender.send(function()))
    child.start()
    assert receiver.poll(30), "the child hangs"
    answer = receiver.recv()
    child.join(30)
    assert child.exitcode == 0
    return answer


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
# Python warns that forking beside threads may deadlock; that it does not is what is tested.
quiet = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@needs_fork
@quiet
def test_a_forked_child_loads_its_own_model(tiny):
    def work():
        with edgeinfer.load(tiny, threads=2, context=64) as model:
            return model.generate("abc", max_tokens=4, temperature=0).tokens

    assert in_child(work) == work()


@needs_fork
@quiet
def test_a_forked_child_may_not_use_its_parents_model(model):
    def work():
        try:
            model.generate("abc", max_tokens=1)
        except edgeinfer.ClosedError as error:
            model.close()  # does not hang on threads that the child does not have
            return error.message

    assert "forked" in in_child(work)
    assert model.generate("abc", max_tokens=1).tokens  # the parent goes on


@needs_fork
@quiet
def test_nor_one_of_a_backend_that_does_not_mind():
    from support.fake_model import fake_model

    model = fake_model()

    def work():
        try:
            model.generate("abc")
        except edgeinfer.ClosedError as error:
            return error.message

    assert "forked" in in_child(work)


def test_importing_is_cheap():
    script = "import sys, edgeinfer; sys.exit('numpy' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_the_default_model_knows_its_capital(smollm2):
    """The sampling and the system message that the command line uses, over many seeds."""
    with edgeinfer.load(smollm2, context=256) as model:
        messages = [
            {"role": "system", "content": model.system},
            {"role": "user", "content": "What is the capital of France?"},
        ]
        answers = [model.chat(messages, seed=seed, max_tokens=24).text for seed in range(4)]

    assert all("Paris" in answer for answer in answers)


def test_a_draft_model_guesses_and_changes_nothing(tmp_path):
    path = write_whole_model(tmp_path / "whole.gguf")
    with edgeinfer.load(path, backend="native", draft=path) as model:
        endless = {token: float("-inf") for token in model.tokenizer.eos_ids}
        options = {"temperature": 0, "max_tokens": 40, "logit_bias": endless}
        found = model.generate("abc", **options)
        plain = model.generate("abc", speculate="off", **options)

    assert found.tokens == plain.tokens
    assert found.timings.accepted_tokens > 0
    assert plain.timings.drafted_tokens == 0


def test_a_draft_model_has_the_same_vocabulary(tmp_path):
    path = write_whole_model(tmp_path / "whole.gguf")
    other = tmp_path / "other.gguf"
    other.write_bytes(path.read_bytes().replace(b"<|im_end|>", b"<|at_end|>"))

    with pytest.raises(edgeinfer.UnsupportedError, match="another vocabulary"):
        edgeinfer.load(path, backend="native", draft=other)


def test_a_tokenizer_that_fails_gives_the_engine_back(tiny, monkeypatch):
    from edgeinfer.backends.native import NativeEngine

    closed = []
    shutdown = NativeEngine.shutdown

    def noted(engine: NativeEngine) -> None:
        closed.append(engine)
        shutdown(engine)

    def fail(file: object) -> None:
        raise edgeinfer.UnsupportedError("a tokenizer of tomorrow")

    monkeypatch.setattr(NativeEngine, "shutdown", noted)
    monkeypatch.setattr("edgeinfer.tokenizer.load_tokenizer", fail)

    with pytest.raises(edgeinfer.UnsupportedError, match="of tomorrow"):
        edgeinfer.load(tiny)

    assert len(closed) == 1
