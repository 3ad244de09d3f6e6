"""Fixtures that every test may use: the test data and a real model."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of vocabularies, chat templates and text that EDGEINFER_TEST_DATA names."""
    folder = os.environ.get("EDGEINFER_TEST_DATA")
    if not folder:
        pytest.skip("EDGEINFER_TEST_DATA is not set")
    return Path(folder)
