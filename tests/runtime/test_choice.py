"""Choosing a backend: measured, remembered, and never fatal where another can do it."""

from __future__ import annotations

import logging
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest

from edgeinfer.backends import fake
from edgeinfer.backends.base import ModelFiles
from edgeinfer.device.detect import detect
from edgeinfer.errors import CorruptFileError, DoesNotFitError, UnsupportedError
from edgeinfer.runtime import choice
from edgeinfer.runtime.choice import Choice, Job
from edgeinfer.runtime.speeds import Setting, Speed, Speeds, measure
from support.fake_model import fake_plan

SOURCE = """
LOG = []

class Timed(FakeBackend):
    rank = 10
    seconds = 0.0
    def __init__(self):
        super().__init__(seconds_per_token=self.seconds)
    def probe(self, device):
        return Support(usable=True, rank=self.rank)
    def load(self, files, plan):
        LOG.append(f"load {type(self).__name__}")
        engine = super().load(files, plan)
        close = engine.shutdown
        engine.shutdown = lambda: (LOG.append(f"close {type(self).__name__}"), close())
        return engine

class Fast(Timed):
    seconds = 0.001

class Slow(Timed):
    rank, seconds = 100, 0.003

class Newer(Slow):
    def version(self):
        return "2"

class Refuses(Timed):
    rank = 200
    def load(self, files, plan):
        raise RuntimeError("no kernel image is available")

class Stumbles(Timed):
    rank = 200
    def load(self, files, plan):
        engine = super().load(files, plan)
        def step(batch):
            raise OSError("device lost")
        engine.step = step
        return engine

class Corrupt(Timed):
    rank = 200
    def load(self, files, plan):
        raise CorruptFileError("tensor 7 leaves the file")

class Crashes(Timed):
    def probe(self, device):
        os.kill(os.getpid(), signal.SIGILL)
"""


@pytest.fixture
def job(tmp_path):
    def make(name="model.fake", content=b"weights", device=None, plan=fake_plan, **changes):
        path = tmp_path / name
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)
        base = replace(plan(), weights_bytes=1000, budget_bytes=1 << 40, **changes)
        return Job(
            files=ModelFiles(path=path, format="fake"),
            device=device or detect(),
            plan=lambda backend: replace(base, backend=backend),
        )

    return make


def log() -> list[str]:
    import third_party

    events, third_party.LOG = third_party.LOG, []
    return events


def opened(job: Job, name: str = "auto"):
    engine, plan = Choice(name, job).open()
    engine.shutdown()
    return plan


# ---- speed -----------------------------------------------------------------------------------


def test_the_only_one_is_not_measured(install, job):
    install(SOURCE, slow="Slow")

    assert opened(job()).chosen_because == "the only one that runs this model here"
    assert log() == ["load Slow", "close Slow"]


def test_nothing_known_is_raced_and_remembered(install, job):
    install(SOURCE, slow="Slow", fast="Fast")

    raced = opened(job())
    assert raced.backend == "fast"
    assert raced.chosen_because.startswith("raced: ")
    (loser,) = raced.rejected
    assert loser.backend == "slow"
    assert "slower by" in loser.reason
    assert log() == ["load Slow", "load Fast", "close Slow", "close Fast"]

    remembered = opened(job())
    assert remembered.backend == "fast"
    assert remembered.chosen_because.startswith("measured before: ")
    assert log() == ["load Fast", "close Fast"]
    assert "fast backend: measured before" in remembered.explain()
    assert "not slow: slower by" in remembered.explain()


@pytest.mark.parametrize(
    "changes",
    [
        {"content": b"other weights"},
        {"threads": 3},
        {"batch_threads": 3},
        {"kv_type_k": "f32"},
        {"device": replace(detect(), cpu="another")},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_is_remembered_is_forgotten_when_anything_changes(install, job, changes):
    install(SOURCE, slow="Slow", fast="Fast")
    opened(job())
    log()

    # A changed model of the same kind is predicted; here nothing is close, so it decides.
    because = opened(job(**changes)).chosen_because
    assert because.startswith("predicted" if "content" in changes else "raced")


def test_another_version_of_a_backend_is_raced_again(install, job):
    install(SOURCE, slow="Slow", fast="Fast")
    opened(job())
    install(
        SOURCE + "class Slow(Newer): pass",
        slow="Slow",
        fast="Fast",
    )

    assert opened(job()).chosen_because.startswith("raced")


def test_a_clear_prediction_decides_and_a_close_one_is_raced(install, job):
    install(SOURCE, slow="Slow", fast="Fast")
    device, speeds = detect(), Speeds()
    other = job("other.fake")
    known = {"fast": 100.0, "slow": 90.0}
    for name, decode in known.items():
        setting = Setting.of("1", other.files.path, device, other.plan(name))
        speeds.remember(setting, Speed(prefill=1000.0, decode=decode))

    assert opened(job()).chosen_because.startswith("raced")
    log()

    setting = Setting.of("1", other.files.path, device, other.plan("slow"))
    speeds.remember(setting, Speed(prefill=400.0, decode=30.0))
    assert opened(job("third.fake")).chosen_because.startswith("predicted")
    assert log() == ["load Fast", "close Fast"]


def test_a_prediction_goes_with_the_bytes_of_the_weights(tmp_path):
    device, path = detect(), tmp_path / "a"
    path.write_bytes(b"x")
    small = Setting.of("1", path, device, replace(fake_plan(), weights_bytes=100))
    large = replace(small, model="b", weights_bytes=400)
    speeds = Speeds(tmp_path / "speeds.json")
    speeds.remember(small, Speed(prefill=80.0, decode=20.0))

    assert speeds.predict(large) == Speed(prefill=20.0, decode=5.0)
    assert speeds.recall(large) is None
    assert speeds.predict(replace(large, quant="q8_0")) is None


@pytest.mark.parametrize("changed", [f.name for f in fields(Setting) if f.name != "weights_bytes"])
def test_a_speed_is_recalled_of_the_very_same_setting_only(tmp_path, changed):
    path = tmp_path / "a"
    path.write_bytes(b"x")
    setting = Setting.of("1", path, detect(), fake_plan())
    speeds = Speeds(tmp_path / "speeds.json")
    speeds.remember(setting, Speed(prefill=80.0, decode=20.0))

    assert speeds.recall(setting) == Speed(prefill=80.0, decode=20.0)
    assert speeds.recall(replace(setting, **{changed: "another"})) is None


def test_other_kernels_are_another_version_of_the_native_backend(monkeypatch):
    from edgeinfer import _native
    from edgeinfer.backends.native import NativeBackend

    usual = NativeBackend().version()
    monkeypatch.setattr(_native, "isa", lambda: "another")

    assert NativeBackend().version() != usual


@pytest.mark.parametrize("seconds_per_token", [0.0, 0.001, 0.2])
def test_measuring_keeps_to_its_time_and_is_right(seconds_per_token):
    backend = fake.FakeBackend(seconds_per_token=seconds_per_token)
    engine = backend.load(ModelFiles(path=Path(), format="fake"), fake_plan())
    start = time.perf_counter()

    speed = measure(engine, fake_plan(), 0.5)

    assert time.perf_counter() - start < 0.5 + 2 * seconds_per_token + 0.3
    if seconds_per_token:
        assert 0.4 / seconds_per_token < speed.decode <= 1 / seconds_per_token
        assert speed.prefill <= 1 / seconds_per_token


def test_engines_that_do_not_fit_together_are_raced_one_after_the_other(install, job):
    install(SOURCE, slow="Slow", fast="Fast")

    tight = job(scratch_bytes=1000)
    tight = replace(tight, plan=lambda n, plan=tight.plan: replace(plan(n), budget_bytes=3000))
    assert opened(tight).backend == "fast"
    assert log() == ["load Slow", "close Slow", "load Fast", "close Fast"]


# ---- failure ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "words"),
    [("Refuses", "no kernel image"), ("Stumbles", "device lost"), ("Crashes", "SIGILL")],
)
def test_one_that_fails_gives_way_with_a_warning_that_names_it(
    install,
    job,
    caplog,
    broken,
    words,
):
    install(SOURCE, bad=broken, good="Fast")

    with caplog.at_level(logging.WARNING, "edgeinfer"):
        plan = opened(job())

    assert plan.backend == "good"
    (warning,) = caplog.records
    assert "bad" in warning.getMessage()
    assert words in warning.getMessage()
    (rejection,) = plan.rejected
    assert rejection.backend == "bad"
    assert words in rejection.reason


@pytest.mark.parametrize("broken", ["Refuses", "Crashes"])
def test_one_asked_for_by_name_never_gives_way(install, job, broken):
    install(SOURCE, bad=broken, good="Fast")

    with pytest.raises((RuntimeError, UnsupportedError), match=r"no kernel image|SIGILL"):
        opened(job(), "bad")


def test_a_corrupt_file_is_nobody_elses_business(install, job):
    install(SOURCE, strict="Corrupt", good="Fast")

    with pytest.raises(CorruptFileError):
        opened(job())


def test_when_all_fail_the_best_ones_error_is_told(install, job):
    install(SOURCE + "class Also(Refuses): rank = 100", bad="Refuses", also="Also")

    with pytest.raises(RuntimeError, match="no kernel image"):
        opened(job())


def test_what_does_not_fit_is_rejected_before_it_loads(install, job):
    install(SOURCE, slow="Slow", fast="Fast")
    usual = job()

    def plan(name):
        if name == "fast":
            raise DoesNotFitError("9 GiB needed", need_bytes=9, have_bytes=1, suggest=None)
        return usual.plan(name)

    found = opened(replace(usual, plan=plan))
    assert found.backend == "slow"
    assert [(r.backend, r.reason) for r in found.rejected] == [("fast", "9 GiB needed")]
    assert log() == ["load Slow", "close Slow"]


def test_when_none_fits_the_reasons_are_told(install, job):
    install(
        SOURCE + "class Unusable(Timed):\n"
        "    def probe(self, device):\n"
        "        return Support(usable=False, reason='needs a quantum computer')",
        unusable="Unusable",
        broken="NotThere",
    )

    with pytest.raises(UnsupportedError, match="'fake' models") as caught:
        opened(job())
    assert "quantum computer" in caught.value.hint
    assert "NotThere" in caught.value.hint


def test_two_seconds_are_the_limit():
    assert choice.RACE_SECONDS == 2
