"""Asking a backend in a process of its own: whatever it does there, the answer is an answer."""

from __future__ import annotations

from edgeinfer.backends import probing, registry
from edgeinfer.device.detect import detect

BAD = """
class Crashes(FakeBackend):
    def probe(self, device):
        os.kill(os.getpid(), signal.SIGSEGV)

class Leaves(FakeBackend):
    def probe(self, device):
        os._exit(3)

class Hangs(FakeBackend):
    def probe(self, device):
        time.sleep(60)

class Raises(FakeBackend):
    def probe(self, device):
        raise RuntimeError("the driver is older than this library")

class Chats(FakeBackend):
    def probe(self, device):
        print("found 0 devices, have a nice day")
        return Support(usable=True, reason="well", rank=7)
"""


def asked(timeout: float = 300.0) -> dict[str, probing.Answer]:
    return probing.ask(registry.installed().values(), detect(), timeout)


def test_one_that_crashes_is_named_with_its_signal(install):
    install(BAD, crashes="Crashes", leaves="Leaves", chats="Chats")

    answers = asked()

    assert "SIGSEGV" in answers["crashes"].problem
    assert "exit code 3" in answers["leaves"].problem
    assert not answers["crashes"].support.usable
    assert answers["chats"].support.usable
    assert answers["chats"].support.rank == 7


def test_one_that_raises_or_is_not_there_says_what(install):
    install(BAD, raises="Raises", missing="Missing")

    answers = asked()

    assert "the driver is older" in answers["raises"].problem
    assert "Missing" in answers["missing"].problem


def test_one_that_hangs_is_given_up_but_asked_again(install):
    install(BAD, hangs="Hangs")

    assert "within 1 s" in asked(timeout=1)["hangs"].problem
    assert not probing.Remembered(probing.home() / "probes.json").path.exists()


def test_an_answer_is_remembered_until_something_is_installed(install, monkeypatch):
    folder = install(BAD, chats="Chats", crashes="Crashes")
    asked()  # the first import makes a __pycache__ beside the module
    first = asked()
    started = []
    start = probing._start
    monkeypatch.setattr(probing, "_start", lambda point: started.append(point.name) or start(point))

    assert asked() == first
    assert started == []

    (folder / "another_package").mkdir()
    assert asked() == first
    assert started == ["chats", "crashes"]


def test_a_new_driver_makes_it_ask_again(install, monkeypatch, tmp_path):
    install(BAD, chats="Chats")
    monkeypatch.setattr(probing, "_DEV", tmp_path)
    asked()
    asked()  # the first import made a __pycache__ beside the module
    started = []
    start = probing._start
    monkeypatch.setattr(probing, "_start", lambda point: started.append(point.name) or start(point))

    asked()
    assert started == []
    (tmp_path / "nvidia0").touch()
    asked()
    assert started == ["chats"]


def test_where_nothing_can_be_remembered_it_is_asked_each_time(install, monkeypatch, tmp_path):
    install(BAD, chats="Chats")
    monkeypatch.setenv("EDGEINFER_HOME", str(tmp_path / "home"))
    (tmp_path / "home").write_text("a file, where the folder should be")

    assert asked()["chats"].support.usable
    assert asked()["chats"].support.usable
