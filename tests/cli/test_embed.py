"""``edgeinfer embed``: a vector a text."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgeinfer.backends import fake
from support.fake_model import fake_model


@pytest.fixture
def vectors(use_model):
    """What the model gives of two texts."""
    use_model(fake_model())
    return fake_model().embed(["one", "two words"])


def test_a_line_a_text(edgeinfer, vectors):
    outcome = edgeinfer("embed", "m", "one", "two words")

    found = [[float(word) for word in line.split()] for line in outcome.stdout.splitlines()]
    assert np.shape(found) == (2, fake.WIDTH)
    np.testing.assert_allclose(found, vectors, rtol=1e-6)


def test_lines_of_standard_input(edgeinfer, vectors, piped):
    piped("one\n\ntwo words\n")

    outcome = edgeinfer("embed", "m", "--json")

    records = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert [record["text"] for record in records] == ["one", "two words"]
    np.testing.assert_allclose([record["embedding"] for record in records], vectors, rtol=1e-6)


def test_no_text_is_a_usage_error(edgeinfer, vectors, piped):
    piped("\n")

    assert edgeinfer("embed", "m").exit_code == 2
