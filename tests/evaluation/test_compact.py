"""Reference logits on disk: how exact, how small, and what damage does."""

from __future__ import annotations

import numpy as np
import pytest

from edgeinfer.errors import CorruptFileError, NotFoundError
from edgeinfer.evaluation.compact import ReferenceLogits, ReferenceWriter
from edgeinfer.evaluation.scores import ReferenceRows, distance

CHUNKS, ROWS, VOCAB = 3, 8, 32000


@pytest.fixture(scope="module")
def logits():
    """As a model's: most tokens far below a few."""
    random = np.random.default_rng(0)
    flat = random.standard_normal((CHUNKS, ROWS, VOCAB)) * 3
    flat[..., :20] += random.uniform(0, 14, (CHUNKS, ROWS, 20))
    return flat.astype(np.float32)


TARGETS = np.arange(CHUNKS * ROWS, dtype=np.int32).reshape(CHUNKS, ROWS)


@pytest.fixture
def path(logits, tmp_path):
    path = tmp_path / "reference.logits"
    with ReferenceWriter(path, chunks=CHUNKS, rows=ROWS, vocab=VOCAB, about={"of": "a"}) as writer:
        for chunk, targets in zip(logits, TARGETS, strict=True):
            writer.write(chunk[:5], targets[:5])  # in pieces, as they come
            writer.write(chunk[5:], targets[5:])
    return path


def test_a_divergence_from_disk_is_the_exact_one(path, logits):
    """The error that the compact form makes in a mean: 1e-7 nats, or 0.1 % of a small one."""
    noise = np.random.default_rng(1).standard_normal(logits.shape) * 0.05
    other = (logits + noise).astype(np.float32)

    for number, rows in enumerate(ReferenceLogits(path)):
        exact = ReferenceRows.of(logits[number], TARGETS[number])
        expected = distance(other[number], TARGETS[number], exact)
        found = distance(other[number], TARGETS[number], rows)
        assert 1e-4 < expected.kl.mean() < 1e-2
        assert found.kl.mean() == pytest.approx(expected.kl.mean(), rel=1e-3)
        np.testing.assert_array_equal(found.same_top, expected.same_top)
        np.testing.assert_array_equal(found.nll_reference, expected.nll_reference)


def test_a_model_is_not_away_from_itself(path, logits):
    for number, rows in enumerate(ReferenceLogits(path)):
        found = distance(logits[number], TARGETS[number], rows)
        assert found.kl.max() < 1e-7
        assert found.same_top.all()


def test_a_logit_takes_two_bytes(path):
    assert path.stat().st_size / (CHUNKS * ROWS * VOCAB) == pytest.approx(2, rel=1e-3)


def test_tokens_that_are_ruled_out_stay_so(tmp_path):
    logits = np.full((1, 4), -np.inf, np.float32)
    logits[0, 2] = 1
    path = tmp_path / "certain"
    with ReferenceWriter(path, chunks=1, rows=1, vocab=4, about={}) as writer:
        writer.write(logits, np.array([2], np.int32))

    rows = ReferenceLogits(path).chunk(0)

    assert rows.logits.tolist() == [[-32, -32, 0, -32]]
    assert rows.nll[0] == 0


def test_it_says_what_made_it(path):
    assert ReferenceLogits(path).about == {"of": "a"}


def test_it_appears_only_when_it_is_complete(tmp_path, logits):
    path = tmp_path / "half"
    with (
        pytest.raises(RuntimeError),
        ReferenceWriter(path, chunks=2, rows=ROWS, vocab=VOCAB, about={}) as writer,
    ):
        writer.write(logits[0], TARGETS[0])
        raise RuntimeError

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", [0, 9, 14, 60, 200, 1000, 100_000, 600_000, 1_500_000, -1])
def test_damage_is_found(path, place):
    octets = bytearray(path.read_bytes())
    octets[place] ^= 0x40
    path.write_bytes(octets)

    with pytest.raises(CorruptFileError, match=r"reference\.logits"):
        list(ReferenceLogits(path))


@pytest.mark.parametrize("length", [0, 5, 11, 40, 5000, -4])
def test_a_file_cut_off_is_found_at_once(path, length):
    path.write_bytes(path.read_bytes()[:length])

    with pytest.raises(CorruptFileError, match=r"reference\.logits"):
        ReferenceLogits(path)


def test_none_is_another_error(tmp_path):
    with pytest.raises(NotFoundError):
        ReferenceLogits(tmp_path / "none")
