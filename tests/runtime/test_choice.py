"""Choosing a backend: measured, remembered, and never fatal where another can do it."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

import pytest

from edgeinfer.backends import probing, registry
from edgeinfer.backends.base import ModelFiles
from edgeinfer.device.detect import detect
from edgeinfer.errors import CorruptFileError, DoesNotFitError, UnsupportedError
from edgeinfer.planner.speed import Speed
from edgeinfer.runtime import choice
from edgeinfer.runtime.choice import Choice, Job
from edgeinfer.runtime.speeds import Setting, Speeds
from edgeinfer.types import Timings
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


@pytest.fixture(autouse=True)
def _asked_here(monkeypatch):
    """No child process and no time-out, but for the backend that ends the one it is in."""
    in_a_child = probing.ask

    def answer(point, device):
        try:
            return probing.ask_here(point.load()(), device)
        except Exception as error:
            return probing.Answer.failed(str(error))

    def ask(points, device):
        points = list(points)
        deadly = [point for point in points if point.value.endswith(":Crashes")]
        others = {p.name: answer(p, device) for p in points if p not in deadly}
        return others | in_a_child(deadly, device, timeout=300)

    monkeypatch.setattr(registry.probing, "ask", ask)


@pytest.fixture(autouse=True)
def _kernels_that_predictions_are_made_with(monkeypatch):
    monkeypatch.setattr(choice, "isa_in_use", lambda: "avx512")


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

    assert opened(job(**changes)).chosen_because.startswith("raced")


def test_another_version_of_a_backend_is_raced_again(install, job):
    install(SOURCE, slow="Slow", fast="Fast")
    opened(job())
    install(
        SOURCE + "class Slow(Newer): pass",
        slow="Slow",
        fast="Fast",
    )

    assert opened(job()).chosen_because.startswith("raced")


def predicting(job: Job, **decode: float) -> Job:
    """The job with predictions of tokens per second."""

    def plan(name):
        planned, speed = job.plan(name), decode.get(name)
        return replace(planned, prefill_tokens_per_second=speed, decode_tokens_per_second=speed)

    return replace(job, plan=plan)


def test_a_clear_prediction_decides_and_a_close_one_is_raced(install, job):
    install(SOURCE, slow="Slow", fast="Fast")

    assert opened(predicting(job(), fast=100, slow=81)).chosen_because.startswith("raced")
    log()

    # Not what it is: the prediction is believed.
    plan = opened(predicting(job("another.fake"), fast=10, slow=13))
    assert plan.chosen_because == "predicted: 13 tokens/s, prompt 13 tokens/s"
    assert log() == ["load Slow", "close Slow"]
    (loser,) = plan.rejected
    assert loser.reason == "slower by 1.30x (10 tokens/s, prompt 10 tokens/s)"


def test_a_prediction_of_one_alone_decides_nothing(install, job):
    install(SOURCE, slow="Slow", fast="Fast")

    assert opened(predicting(job(), slow=1e9)).backend == "fast"


def test_with_other_kernels_a_prediction_decides_nothing(install, job, monkeypatch):
    install(SOURCE, slow="Slow", fast="Fast")
    monkeypatch.setattr(choice, "isa_in_use", lambda: "scalar")

    plan = opened(predicting(job(), fast=50, slow=100))
    assert (plan.backend, plan.chosen_because[:6]) == ("fast", "raced:")


@pytest.mark.parametrize("layers", [-1, None])
def test_a_prediction_is_not_of_accelerators(install, job, layers):
    install(
        SOURCE + "from edgeinfer.device.accelerator import Accelerator\n"
        "class Gpu(Slow):\n"
        "    def probe(self, device):\n"
        "        gpu = Accelerator(kind='gpu', api='CUDA', name='G')\n"
        "        return Support(usable=True, rank=1, accelerators=(gpu,))\n",
        gpu="Gpu",
        fast="Fast",
    )
    on_gpu = job(gpu_layers=layers)
    on_processor = job("another.fake", gpu_layers=0)

    assert opened(predicting(on_gpu, gpu=100, fast=50)).chosen_because.startswith("raced")
    assert opened(predicting(on_processor, gpu=100, fast=50)).backend == "gpu"


def test_what_was_measured_goes_before_what_is_predicted(install, job):
    install(SOURCE, slow="Slow", fast="Fast")
    speeds, asked = Speeds(), predicting(job(), fast=100, slow=50)
    setting = Setting.of("1", asked.files.path, asked.device, asked.plan("fast"))
    speeds.remember(setting, Speed(prefill=10.0, decode=10.0))

    assert opened(asked).chosen_because.startswith("predicted: 50 tokens/s")


def test_answers_of_another_speed_than_expected_bring_a_race(install, job):
    install(SOURCE, slow="Slow", fast="Fast")
    asked = predicting(job(), fast=50, slow=100)
    choice = Choice("auto", asked)
    engine, plan = choice.open()
    engine.shutdown()
    assert plan.backend == "slow"  # wrongly

    answer = Timings(new_tokens=64, decode_steps=63, step_seconds=1 / 50)
    assert choice.expectation.answered(answer, context_used=100)

    plan = opened(asked)
    assert (plan.backend, plan.chosen_because[:6]) == ("fast", "raced:")
    assert opened(asked).chosen_because.startswith("measured before")


def test_a_disturbed_race_is_run_again_later(install, job, monkeypatch):
    install(SOURCE, slow="Slow", fast="Fast")
    real = choice.measure
    with monkeypatch.context() as patch:
        patch.setattr(choice, "measure", lambda *given: (real(*given)[0], False))
        opened(job())
    files = job()

    def chosen(after):
        speeds = Speeds(clock=lambda: time.time() + after)
        engine, plan = Choice("auto", files, speeds).open()
        engine.shutdown()
        return plan.chosen_because

    assert chosen(after=500).startswith("measured before")
    assert chosen(after=700).startswith("raced")


def test_other_kernels_are_another_version_of_the_native_backend(monkeypatch):
    from edgeinfer import _native
    from edgeinfer.backends.native import NativeBackend

    usual = NativeBackend().version()
    monkeypatch.setattr(_native, "isa", lambda: "another")

    assert NativeBackend().version() != usual


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
