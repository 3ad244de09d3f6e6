"""Models that read texts as a whole, beside transformers and llama.cpp."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeinfer.arch.config import Activation
from edgeinfer.errors import ContextFullError, UnsupportedError
from support import reference, tiny
from support.ours import our_engine, read_tensors

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

Converted = Callable[..., Path]
Checkpoint = Callable[[tiny.Tiny], Path]
models = pytest.mark.parametrize("model", tiny.ENCODERS, ids=str)
WORDS = pytest.mark.parametrize("name", ["bert-mha32", "xlm_roberta-mha32", "nomic_bert-mha64"])

TEXTS = ["the cat sat on the mat", "a rat", "Wo ist die Katze?", "", "the " * 40]
POOLINGS = {"mean_tokens": "mean", "cls_token": "first"}


def transformers_states(folder: Path, model: tiny.Tiny, tokens: Sequence[int]) -> NDArray:
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    cls = getattr(transformers, model.config["architectures"][0])
    theirs = cls.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        return theirs(torch.tensor([list(tokens)])).last_hidden_state[0].numpy()


def our_states(engine, *texts: Sequence[int]) -> list[NDArray[np.float32]]:
    """The hidden states of texts that are read in one step."""
    slices = [engine._slice(engine.engine.open(), list(text), len(text)) for text in texts]
    states = engine.engine.embed(slices)
    for part in slices:
        engine.engine.close(part.sequence)
    return np.split(states, np.cumsum([len(text) for text in texts])[:-1])


def distance(a: NDArray, b: NDArray) -> float:
    """The largest difference as part of b's range."""
    return float(np.abs(a - b).max() / (b.max() - b.min()))


@models
def test_every_state_is_that_of_transformers(
    model: tiny.Tiny, checkpoint: Checkpoint, converted: Converted
) -> None:
    wanted = transformers_states(checkpoint(model), model, model.tokens)
    config, tensors = read_tensors(converted(model))

    assert distance(reference.hidden_states(config, tensors, model.tokens), wanted) < 1e-5
    with our_engine(converted(model)) as engine:
        assert distance(our_states(engine, model.tokens)[0], wanted) < 1e-5


@models
@pytest.mark.parametrize("quant", ["f32", "q8_0"])
def test_texts_do_not_hang_on_what_they_are_read_with(
    model: tiny.Tiny, converted: Converted, quant: str
) -> None:
    text = model.tokens
    texts = [text[:3], text, text[5:20], text[:1], text[10:], *[text[:7]] * 30]

    for threads in (1, 3):
        with our_engine(converted(model, quant), threads=threads) as engine:
            together = our_states(engine, *texts)
            for found, alone in zip(together, texts, strict=True):
                np.testing.assert_array_equal(found, our_states(engine, alone)[0])


@pytest.mark.parametrize("model", [m for m in tiny.ENCODERS if m.in_llama_cpp], ids=str)
def test_vectors_of_llama_cpp_are_the_reference_s(model: tiny.Tiny, converted: Converted) -> None:
    import llama_cpp

    config, tensors = read_tensors(converted(model))
    mean = reference.hidden_states(config, tensors, model.tokens).mean(axis=0)
    theirs = llama_cpp.Llama(
        str(converted(model)),
        n_ctx=tiny.CONTEXT,
        n_threads=1,
        embedding=True,
        pooling_type=llama_cpp.LLAMA_POOLING_TYPE_MEAN,
        verbose=False,
    )
    theirs.tokenize = lambda *_, **__: list(model.tokens)

    found = np.array(theirs.embed("whatever", normalize=True))

    # llama.cpp has gelu of a table of f16 values, and by tanh.
    bound = 1e-5 if config.activation is Activation.SILU else 5e-3
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean), atol=bound)


# ---- sentences -------------------------------------------------------------------------------


@pytest.fixture(params=POOLINGS)
def pooling(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sentences(name: str, pooling: str, tmp_path: Path) -> Path:
    """A checkpoint as sentence-transformers writes it."""
    model_type = {"model_type": name.partition("-")[0]}
    model = tiny.BY_NAME[name]
    model = tiny.Tiny(name=name, config={**model.config, **model_type})
    folder = tiny.write(model, tmp_path / "model")
    parts = "sentence_transformers.models"
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": f"{parts}.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{parts}.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    modes = {f"pooling_mode_{kind}": kind == pooling for kind in POOLINGS}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    return folder


@pytest.fixture
def gguf(sentences: Path) -> Path:
    from edgeinfer_converters.gguf import convert

    convert(sentences, sentences.parent / "f32.gguf", quant="f32")
    return sentences.parent / "f32.gguf"


def loaded(path: Path, backend: str = "native", **options):
    import edgeinfer

    kv = {"kv_type_k": "f32", "kv_type_v": "f32"}
    return edgeinfer.load(path, backend=backend, **{"context": 128, "threads": 1, **kv, **options})


@WORDS
@pytest.mark.parametrize("backend", ["native", "llamacpp", "auto"])
def test_sentences_are_those_of_transformers(
    name: str, sentences: Path, gguf: Path, pooling: str, backend: str
) -> None:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(sentences)
    wanted = []
    for text in TEXTS:
        ids = tokenizer(text, truncation=False)["input_ids"]
        states = transformers_states(sentences, tiny.BY_NAME[name], ids)
        vector = states.mean(axis=0) if POOLINGS[pooling] == "mean" else states[0]
        wanted.append(vector / np.linalg.norm(vector))

    with loaded(gguf, backend) as model:
        found = model.embed(TEXTS)

    gelu_by_tanh = backend == "llamacpp" and "nomic" not in name
    np.testing.assert_allclose(found, wanted, atol=5e-3 if gelu_by_tanh else 1e-5)


@WORDS
def test_llama_cpp_reads_the_words_and_the_pooling(
    name: str, sentences: Path, gguf: Path, pooling: str
) -> None:
    import llama_cpp

    theirs = llama_cpp.Llama(str(gguf), n_ctx=128, n_threads=1, embedding=True, verbose=False)

    with loaded(gguf) as model:
        for text in TEXTS:
            assert theirs.tokenize(text.encode()) == model.tokenizer.encode(text)
        found = model.embed(TEXTS)
    wanted = [theirs.embed(text, normalize=True) for text in TEXTS]
    np.testing.assert_allclose(found, wanted, atol=1e-5 if "nomic" in name else 5e-3)


@pytest.mark.parametrize("name", ["bert-mha32"])
@pytest.mark.parametrize("backend", ["native", "llamacpp"])
def test_a_long_text_is_cut_only_if_asked_to(
    name: str, gguf: Path, pooling: str, backend: str
) -> None:
    with loaded(gguf, backend, context=16) as model:
        with pytest.raises(ContextFullError, match="text 1 has 42 tokens"):
            model.embed(["the cat", "the " * 40])

        found = model.embed(["the cat", "the " * 40], truncate=True)
        wanted = model.embed(["the cat", "the " * 14])  # and the tokens around it

    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name", ["bert-mha32"])
@pytest.mark.parametrize("backend", ["native", "llamacpp"])
def test_what_only_reads_cannot_write(name: str, gguf: Path, pooling: str, backend: str) -> None:
    with loaded(gguf, backend) as model:
        for write in (
            lambda: model.generate("the"),
            lambda: model.chat([{"role": "user", "content": "the"}]),
            lambda: model.session(),
            lambda: model.logits([1, 2]),
            lambda: model.engine.step([]),
        ):
            with pytest.raises(UnsupportedError, match="bert models read") as caught:
                write()
            assert "embed" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["bert-mha32"])
def test_nothing_is_kept_of_a_text(name: str, gguf: Path, pooling: str) -> None:
    with loaded(gguf) as model:
        assert model.plan.kv_bytes == 0
        assert model.engine.memory()["kv"] == 0
        assert model.plan.scratch_bytes == model.engine.memory()["scratch"]
        assert model.plan.weights_bytes == model.engine.memory()["weights"]
