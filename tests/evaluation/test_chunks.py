"""A text is cut as llama.cpp's perplexity tool cuts it."""

from __future__ import annotations

import numpy as np
import pytest

from edgeinfer.errors import UsageError
from edgeinfer.evaluation.chunks import chunked


def test_the_second_half_of_each_chunk_is_scored_but_for_its_last_token():
    chunks = chunked(range(20), context=8)

    assert chunks.tokens.tolist() == [[*range(8)], [*range(8, 16)]]  # four are left over
    assert chunks.first == 4
    # Rows 4 to 6 say what tokens 5 to 7 are.
    assert chunks.scored == 3
    assert chunks.targets.tolist() == [[5, 6, 7], [13, 14, 15]]


def test_every_chunk_begins_with_bos_in_place_of_its_first_token():
    chunks = chunked(range(100, 116), context=8, bos=1)

    assert chunks.tokens[:, 0].tolist() == [1, 1]
    assert chunks.tokens[1, 1] == 109


def test_there_may_be_a_limit():
    assert len(chunked(range(64), context=8, limit=3)) == 3


def test_an_odd_number_of_tokens_scores_the_larger_half():
    chunks = chunked(range(9), context=9)

    assert (chunks.first, chunks.scored) == (4, 4)


@pytest.mark.parametrize(("count", "context"), [(7, 8), (0, 8), (100, 3)])
def test_a_text_must_fill_a_chunk(count, context):
    with pytest.raises(UsageError):
        chunked(range(count), context=context)


def test_the_digest_is_of_what_is_read_and_scored():
    chunks = chunked(range(32), context=8)

    assert chunks.digest() == chunked(np.arange(35, dtype=np.int32), context=8).digest()
    assert chunks.digest() != chunked(range(32), context=16).digest()
    assert chunks.digest() != chunked(range(32), context=8, bos=1).digest()
