"""Finding backends: ours, third-party ones, and ones that do not import."""

from __future__ import annotations

import sys
import types
from importlib.metadata import EntryPoint

import pytest

from edgeinfer.backends import fake, registry
from edgeinfer.backends.base import ModelFiles, Slice, Support
from edgeinfer.device.detect import detect
from edgeinfer.errors import NotFoundError, UnsupportedError
from support.fake_model import fake_plan


class Good(fake.FakeBackend):
    def probe(self, device):
        return Support(usable=True, rank=5)


class Better(fake.FakeBackend):
    def probe(self, device):
        return Support(usable=True, rank=50)


class Unusable(fake.FakeBackend):
    def probe(self, device):
        return Support(usable=False, reason="needs a quantum computer", rank=500)


@pytest.fixture
def install(monkeypatch):
    """``install(good=Good)`` makes these the installed backends, by entry point."""

    def make(**backends):
        module = types.ModuleType("third_party")
        module.__dict__.update({name: b for name, b in backends.items() if b is not None})
        monkeypatch.setitem(sys.modules, "third_party", module)
        points = [
            EntryPoint(
                name, f"third_party:{name}" if b else "no_such_module:Backend", registry.GROUP
            )
            for name, b in backends.items()
        ]
        monkeypatch.setattr(registry, "entry_points", lambda group: points)
        registry._load.cache_clear()

    yield make
    registry._load.cache_clear()


def test_the_native_backend_is_installed():
    assert registry.choose("native", "gguf", detect()).name == "native"
    assert registry.choose("auto", "gguf", detect()).name == "native"


def test_the_best_usable_one_is_taken(install):
    install(good=Good, better=Better, unusable=Unusable)

    assert isinstance(registry.choose("auto", "fake", detect()), Better)
    assert [c.name for c in registry.candidates(detect())] == ["better", "good", "unusable"]


def test_one_asked_for_by_name_is_taken_or_an_error(install):
    install(good=Good, better=Better, unusable=Unusable)

    assert isinstance(registry.choose("good", "fake", detect()), Good)
    with pytest.raises(UnsupportedError, match="quantum computer"):
        registry.choose("unusable", "fake", detect())
    with pytest.raises(UnsupportedError, match="does not read 'gguf'"):
        registry.choose("good", "gguf", detect())


def test_an_unknown_name_lists_the_known_ones(install):
    install(good=Good, better=Better)

    with pytest.raises(NotFoundError, match="'other'") as caught:
        registry.choose("other", "fake", detect())
    assert caught.value.hint == "installed: better, good"


def test_one_that_does_not_import_takes_nobody_down(install):
    install(good=Good, broken=None)

    assert isinstance(registry.choose("auto", "fake", detect()), Good)
    with pytest.raises(UnsupportedError, match="no_such_module"):
        registry.choose("broken", "fake", detect())


def test_when_none_fits_the_reasons_are_told(install):
    install(unusable=Unusable, broken=None)

    with pytest.raises(UnsupportedError, match="'fake' models") as caught:
        registry.choose("auto", "fake", detect())
    assert "quantum computer" in caught.value.hint
    assert "no_such_module" in caught.value.hint


def test_a_package_of_somebody_else_adds_one_by_its_entry_point(monkeypatch, tmp_path):
    """A real installed package: a module and the metadata that pip would write."""
    (tmp_path / "their_engine.py").write_text(
        "from edgeinfer.backends.fake import FakeBackend\nclass Theirs(FakeBackend):\n    pass\n"
    )
    info = tmp_path / "their_engine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-engine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\ntheirs = their_engine:Theirs\n")
    monkeypatch.syspath_prepend(tmp_path)

    assert {"native", "theirs"} <= registry.installed().keys()
    engine = registry.choose("theirs", "fake", detect()).load(
        ModelFiles(path=tmp_path, format="fake"), fake_plan()
    )
    assert len(engine.step([Slice(engine.open(), [1, 2], wants_logits=2)])) == 2
