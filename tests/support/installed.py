"""Backends of a package that is not there: a module on the path and entry points that name it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeinfer.backends import registry
from edgeinfer.backends.entry_points import EntryPoint

HEAD = """
import os, signal, time
from edgeinfer.backends.base import Support
from edgeinfer.backends.fake import FakeBackend
from edgeinfer.errors import CorruptFileError, UnsupportedError

"""
Install = Callable[..., Path]


@pytest.fixture
def install(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Install]:
    """``install(source, good="Good")``: these classes of a module are the installed backends.

    Returns the module's folder, which is on the path of this process and its children.
    """
    monkeypatch.setenv("EDGEINFER_HOME", str(tmp_path_factory.mktemp("edgeinfer")))
    folder = tmp_path_factory.mktemp("site")
    monkeypatch.syspath_prepend(folder)

    def make(source: str, **classes: str) -> Path:
        (folder / "third_party.py").write_text(HEAD + source)
        sys.modules.pop("third_party", None)
        points = [EntryPoint(n, f"third_party:{c}") for n, c in classes.items()]
        monkeypatch.setattr(registry, "entry_points", lambda group: points)
        registry._load.cache_clear()
        return folder

    yield make
    registry._load.cache_clear()
    sys.modules.pop("third_party", None)
