"""The public API over the fake backend."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

import edgeinfer
from edgeinfer.arch.config import Pooling
from edgeinfer.backends import fake
from support.fake_model import fake_model


@pytest.fixture
def model():
    with fake_model() as model:
        yield model


def test_the_public_names_are_there():
    for name in edgeinfer.__all__:
        assert getattr(edgeinfer, name) is not None
        assert name in dir(edgeinfer)
    with pytest.raises(AttributeError, match="nothing"):
        _ = edgeinfer.nothing


def test_generate_continues_text(model):
    completion = model.generate("<|start|>hi<|answer|>", max_tokens=5, temperature=0)

    assert isinstance(completion, edgeinfer.Completion)
    assert (completion.text, completion.finish_reason) == ("Hello", "length")
    assert completion.tokens == tuple(b"Hello")
    assert completion.timings.new_tokens == 5
    assert [entry.token for entry in completion.logprobs] == list(b"Hello")


def test_generate_takes_tokens(model):
    assert model.generate([fake.START, fake.ANSWER]).text == "Hello, world."


def test_generate_streams(model):
    events = list(model.generate("<|answer|>", stream=True))

    assert "".join(event.text for event in events) == "Hello, world."
    assert events[-1].finish_reason == "stop"


def test_chat_answers(model):
    messages = [{"role": "user", "content": "hi"}]

    assert model.chat(messages).text == "Hello, world."
    assert "".join(e.text for e in model.chat(messages, stream=True)) == "Hello, world."


def test_a_conversation_of_single_calls_keeps_its_prefix_too(model):
    first = model.chat([{"role": "user", "content": "hi"}])
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": "and?"},
    ]

    second = model.chat(messages)

    assert second.timings.cached_tokens == first.timings.prompt_tokens + len(first.tokens)


def test_calls_that_overlap_do_not_share_a_sequence(model):
    one = model.chat([{"role": "user", "content": "1"}], stream=True)
    two = model.chat([{"role": "user", "content": "2"}], stream=True)

    pairs = [(a.text, b.text) for a, b in zip(one, two, strict=True)]

    assert "".join(a for a, _ in pairs) == "".join(b for _, b in pairs) == "Hello, world."


def test_closing_a_stream_gives_its_sequence_back(model):
    for _ in range(5):
        stream = model.chat([{"role": "user", "content": "hi"}], stream=True)
        next(stream)
        stream.close()

    assert len(model._engine._sequences) == 1


def test_logits_have_a_row_a_token(model):
    tokens = list(b"a text that is longer than one batch of sixteen")

    logits = model.logits(tokens)

    assert logits.shape == (len(tokens), fake.VOCAB)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(model.logits(tokens[:5]), logits[:5])
    assert model.logits([]).shape == (0, fake.VOCAB)


def test_embeddings_have_length_one(model):
    vectors = model.embed(["one text", "another, longer than one batch"])

    assert vectors.shape == (2, fake.WIDTH)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1], abs=1e-6)
    assert model.embed([]).shape == (0, fake.WIDTH)


def test_an_embedding_is_the_mean_of_the_hidden_states(model):
    engine = model._engine
    tokens = list(b"some text")
    hidden = engine.embed([fake.Slice(engine.open(), tokens, len(tokens))])
    mean = hidden.mean(axis=0)

    assert model.embed(["some text"])[0] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)


@pytest.mark.parametrize(("pooling", "which"), [(Pooling.FIRST, 0), (Pooling.LAST, -1)])
def test_an_embedding_is_the_state_that_the_file_names(model, pooling, which):
    engine = model._engine
    engine.config = replace(engine.config, pooling=pooling)
    tokens = list(b"some text")
    state = engine.embed([fake.Slice(engine.open(), tokens, len(tokens))])[which]

    assert model.embed(["some text"])[0] == pytest.approx(state / np.linalg.norm(state), abs=1e-6)


def test_sampling_options_are_checked_at_the_call(model):
    for bad in ({"temperature": -1}, {"top_p": 2}, {"logit_bias": {999: 1}}, {"nonsense": 1}):
        with pytest.raises(edgeinfer.UsageError, match=next(iter(bad))):
            model.generate("x", stream=True, **bad)


def test_a_prompt_beyond_the_context_is_an_error_at_the_call(model):
    with pytest.raises(edgeinfer.ContextFullError, match="600 tokens"):
        model.generate("x" * 600, stream=True)
    with pytest.raises(edgeinfer.ContextFullError):
        model.logits([1] * 600)


@pytest.mark.parametrize("token", [-1, fake.VOCAB])
def test_a_token_outside_the_vocabulary_is_an_error(model, token):
    with pytest.raises(edgeinfer.UsageError, match="vocabulary"):
        model.logits([token])
    with pytest.raises(edgeinfer.UsageError, match="vocabulary"):
        model.generate([token])


def test_a_model_without_a_chat_template_says_so():
    with pytest.raises(edgeinfer.UnsupportedError, match="no chat template"):
        fake_model(template=False).chat([{"role": "user", "content": "hi"}])


def test_bos_is_put_before_a_template_that_leaves_it_out():
    model = fake_model()
    object.__setattr__(model.tokenizer, "add_bos", True)
    with_bos = model.chat_tokens([{"role": "user", "content": "hi"}])
    model.template = edgeinfer.ChatTemplate("{{ messages[0]['content'] }}")

    assert with_bos[:2] == [fake.START, ord("[")]
    assert model.chat_tokens([{"role": "user", "content": "hi"}]) == [fake.START, *b"hi"]


@pytest.mark.parametrize(
    "use",
    [
        lambda m: m.generate("x"),
        lambda m: m.generate("x", stream=True),
        lambda m: m.chat([{"role": "user", "content": "x"}]),
        lambda m: m.logits([1]),
        lambda m: m.embed(["x"]),
        lambda m: m.session(),
    ],
)
def test_a_closed_model_says_so(model, use):
    model.close()
    model.close()

    with pytest.raises(edgeinfer.ClosedError, match="closed"):
        use(model)


def test_closing_ends_a_stream_with_an_error(model):
    stream = model.generate("<|answer|>", stream=True)
    next(stream)
    model.close()

    with pytest.raises(edgeinfer.ClosedError):
        list(stream)


def test_leaving_the_context_closes():
    with fake_model() as model:
        pass

    assert "closed" in repr(model)


def test_two_models_do_not_mix():
    one, two = fake_model("one"), fake_model("two")
    message = [{"role": "user", "content": "who?"}]
    streams = [one.chat(message, stream=True), two.chat(message, stream=True)]

    texts = ["".join(e.text for e in stream) for stream in streams]

    assert texts == ["one", "two"]


def test_threads_get_what_they_would_alone():
    def echo(text: bytes) -> bytes:
        return text[::-1]

    model = fake_model(echo, context=512)
    texts = [f"number {i} " * (i + 1) for i in range(8)]

    def ask(text):
        return model.chat([{"role": "user", "content": text}]).text

    expected = [ask(text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, texts)) == expected
