"""Fixtures that every test may use: test data and a real model, where they are present."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.installed import install  # noqa: F401 - a fixture


@pytest.fixture(autouse=True)
def _log_that_is_heard() -> Iterator[None]:
    """The program directs the package's log to its own output; other tests listen to it.

    Not as it was before the test: fixtures of a module have run by then, and pytest's own
    handlers are among those of a log that was directed elsewhere.
    """
    log = logging.getLogger("edgeinfer")
    log.handlers, log.propagate = [], True
    yield
    log.handlers, log.propagate = [], True


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of vocabularies, chat templates and text that EDGEINFER_TEST_DATA names."""
    folder = os.environ.get("EDGEINFER_TEST_DATA")
    if not folder:
        pytest.skip("EDGEINFER_TEST_DATA is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The GGUF of SmolLM2-135M-Instruct: EDGEINFER_SMOLLM2, or what was pulled before."""
    given = os.environ.get("EDGEINFER_SMOLLM2")
    if given:
        return Path(given)
    from edgeinfer import store

    found = store.locate("smollm2")
    if found is None:
        pytest.skip("needs `edgeinfer pull smollm2`, or EDGEINFER_SMOLLM2")
    return found.path
