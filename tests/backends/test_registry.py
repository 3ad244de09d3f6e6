"""Finding backends: ours, third-party ones, and ones that do not import."""

from __future__ import annotations

import os
from importlib import metadata

import pytest

from edgeinfer.backends import registry
from edgeinfer.backends.base import ModelFiles, Slice
from edgeinfer.backends.entry_points import entry_points
from edgeinfer.device.detect import detect
from edgeinfer.errors import NotFoundError, UnsupportedError
from support.fake_model import fake_plan

SOURCE = """
class Good(FakeBackend):
    def probe(self, device):
        return Support(usable=True, rank=5)

class Better(FakeBackend):
    def probe(self, device):
        return Support(usable=True, rank=50)

class Unusable(FakeBackend):
    def probe(self, device):
        return Support(usable=False, reason="needs a quantum computer", rank=500)
"""


@pytest.fixture
def three(install):
    return install(SOURCE, good="Good", better="Better", unusable="Unusable")


def named(name, model_format="fake"):
    return registry.named(name, model_format, detect()).backend


def test_the_native_backend_is_installed():
    assert named("native", "gguf").name == "native"


def test_the_usable_ones_come_first_the_best_one_before_the_others(three):
    assert [c.name for c in registry.candidates(detect())] == ["better", "good", "unusable"]


def test_one_asked_for_by_name_is_taken_or_an_error(three):
    assert type(named("good")).__name__ == "Good"
    with pytest.raises(UnsupportedError, match="quantum computer"):
        named("unusable")
    with pytest.raises(UnsupportedError, match="does not read 'gguf'"):
        named("good", "gguf")


def test_an_unknown_name_lists_the_known_ones(three):
    with pytest.raises(NotFoundError, match="'other'") as caught:
        named("other")
    assert caught.value.hint == "installed: better, good, unusable"


def test_one_that_does_not_import_takes_nobody_down(install):
    install(SOURCE, good="Good", broken="NotThere")

    good, broken = registry.candidates(detect())
    assert (good.name, good.support.usable) == ("good", True)
    assert (broken.name, broken.support.usable) == ("broken", False)
    with pytest.raises(UnsupportedError, match="NotThere"):
        named("broken")


def test_a_package_of_somebody_else_adds_one_by_its_entry_point(monkeypatch, tmp_path):
    """A real installed package: a module and the metadata that pip would write."""
    (tmp_path / "their_engine.py").write_text(
        "from edgeinfer.backends.fake import FakeBackend\nclass Theirs(FakeBackend):\n    pass\n"
    )
    info = tmp_path / "their_engine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-engine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\ntheirs = their_engine:Theirs\n")
    monkeypatch.setenv("EDGEINFER_HOME", str(tmp_path / "home"))
    monkeypatch.syspath_prepend(tmp_path)

    assert {"native", "theirs"} <= registry.installed().keys()
    engine = named("theirs").load(ModelFiles(path=tmp_path, format="fake"), fake_plan())
    assert len(engine.step([Slice(engine.open(), [1, 2], wants_logits=2)])) == 2


def test_entry_points_are_looked_for_again_when_a_package_comes_or_changes(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEINFER_HOME", str(tmp_path / "home"))
    site = tmp_path / "site"
    info = site / "theirs-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(site)

    def found():
        return {point.name: point.value for point in entry_points("edgeinfer.trial")}

    assert found() == {}
    points = info / "entry_points.txt"
    points.write_text("[edgeinfer.trial]\none = os:getpid\n")
    assert found() == {"one": "os:getpid"}
    points.write_text("[edgeinfer.trial]\ntwo = os:path.join\n")
    os.utime(points, ns=(1, 1))
    assert found() == {"two": "os:path.join"}
    assert entry_points("edgeinfer.trial")[0].load() is os.path.join


def test_entry_points_are_looked_for_once(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEINFER_HOME", str(tmp_path))
    first = entry_points(registry.GROUP)
    monkeypatch.setattr(metadata, "entry_points", lambda group: pytest.fail("looked again"))

    assert entry_points(registry.GROUP) == first
    assert {point.name for point in first} >= {"native", "llamacpp"}


def test_what_a_backend_predicts_is_found_by_its_name():
    from edgeinfer.planner.footprint import Predictor

    assert isinstance(registry.predictor("native"), Predictor)
    assert registry.predictor("no such backend") is None
