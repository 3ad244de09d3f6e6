"""Chunks through an engine: what is read, what is scored, and what cannot be compared."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgeinfer.backends.fake import VOCAB, FakeBackend, FakeEngine
from edgeinfer.errors import UsageError
from edgeinfer.evaluation.chunks import chunked
from edgeinfer.evaluation.run import evaluate, record
from edgeinfer.evaluation.scores import Distance

TEXT = np.random.default_rng(0).integers(0, 256, 200).tolist()


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(FakeBackend(), 64)


def logits_after(engine: FakeEngine, tokens: list[int]) -> np.ndarray:
    from edgeinfer.backends.base import Slice

    sequence = engine.open()
    try:
        return engine.step([Slice(sequence, tokens)])[0].astype(np.float64)
    finally:
        engine.close(sequence)


@pytest.mark.parametrize("batch", [3, 16, 512])
def test_each_token_is_scored_by_the_logits_before_it(engine, batch):
    chunks = chunked(TEXT, context=32, bos=7)

    found = evaluate(engine, chunks, batch=batch)

    expected = []
    for start in range(0, 192, 32):
        chunk = [7, *TEXT[start + 1 : start + 32]]
        for place in range(17, 32):
            logits = logits_after(engine, chunk[:place])
            expected.append(math.log(np.exp(logits).sum()) - logits[chunk[place]])
    np.testing.assert_allclose(found.nll, expected, rtol=1e-5)


def test_only_rows_that_are_scored_are_asked_for(engine):
    evaluate(engine, chunked(TEXT, context=32, limit=1), batch=8)

    steps = [(len(part.tokens), part.wants_logits) for (part,) in engine.steps]
    assert steps == [(8, 0), (8, 0), (8, 8), (7, 7)]


def test_a_reference_is_recorded_once_and_compared_with(engine, tmp_path):
    chunks = chunked(TEXT, context=32)
    reference = record(engine, chunks, tmp_path / "logits", batch=16, about={})

    found = evaluate(engine, chunks, batch=5, reference=reference)

    assert isinstance(found, Distance)
    assert found.kl.max() < 1e-7
    np.testing.assert_allclose(found.nll, found.nll_reference, rtol=1e-6)
    assert (reference.rows, reference.vocab, len(reference)) == (15, VOCAB, 6)


@pytest.mark.parametrize(
    "other",
    [
        chunked(TEXT[1:], context=32),
        chunked(TEXT, context=16),
        chunked(TEXT, context=32, bos=1),
        chunked(TEXT, context=32, limit=2),
    ],
    ids=["another text", "another context", "another start", "fewer chunks"],
)
def test_a_reference_is_of_the_same_tokens(other, engine, tmp_path):
    chunks = chunked(TEXT, context=32)
    reference = record(engine, chunks, tmp_path / "logits", batch=16, about={})

    with pytest.raises(UsageError, match="other tokens"):
        evaluate(engine, other, batch=16, reference=reference)


def test_progress_is_told_after_each_chunk(engine):
    told = []

    evaluate(engine, chunked(TEXT, context=64), batch=64, progress=told.append)

    assert told == [1, 2, 3]


def test_sequences_are_closed_whatever_happens(engine):
    def stop(_done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(engine, chunked(TEXT, context=32), batch=16, progress=stop)

    assert engine._sequences == {}
