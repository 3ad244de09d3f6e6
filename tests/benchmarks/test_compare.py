"""How a comparison takes turns, and what it makes of its samples."""

from __future__ import annotations

import json
import stat
from contextlib import contextmanager
from pathlib import Path

import compare
import contestants
import pytest
import summary

from edgeinfer.device.ceilings import Ceilings
from edgeinfer.runtime.benchmark import Test, Work

ONE, EIGHT, NEW = Test(prompt_tokens=1), Test(prompt_tokens=8), Test(new_tokens=4)
WORK = Work(parameters=0, weight_bytes=10**9, layer_macs=10**9, output_macs=0)


def sample(engine: str, test: Test, number: int, rate: float, stream: float = 40.0):
    limits = Ceilings(threads=2, stream_bytes_per_second=stream * 1e9, int8_macs_per_second=1000e9)
    return compare.Sample(
        engine=engine, test=test, round=number, tokens_per_second=rate, ceilings=limits
    )


def test_ratios_are_of_the_same_round():
    samples = [
        *(sample("edgeinfer", NEW, n, rate) for n, rate in enumerate([20, 30, 36])),
        *(sample("peer", NEW, n, rate) for n, rate in enumerate([10, 10, 18])),
    ]

    ours, peer = compare.rows_of(samples, lambda engine: WORK, batch=512)

    assert (ours["engine"], ours["tokens_per_second"], ours["rounds"]) == ("edgeinfer", 30, 3)
    assert ours["gigabytes_per_second"] == pytest.approx(30)
    assert ours["of_stream"] == pytest.approx(0.75)
    assert ours["of_peak"] == pytest.approx(0.03)
    assert (peer["ratio"], peer["ratio_least"], peer["ratio_most"]) == (2, 2, 3)
    assert peer["ours_is"] == "2.00x (2.00 to 3.00)"
    assert ours["ours_is"] == ""


def test_the_cost_of_a_small_batch_is_in_steps_of_one_token():
    samples = [sample("edgeinfer", ONE, 0, 50), sample("edgeinfer", EIGHT, 0, 200)]

    one, eight = compare.rows_of(samples, lambda engine: WORK, batch=512)

    assert one["cost_of_one"] == 1
    assert eight["cost_of_one"] == 2  # 8 / 200 s against 1 / 50 s
    assert "of one token" in compare.show([{"model": "m", "threads": 2, **one}])


def test_slow_and_fast_memory_are_told_apart():
    steady = [sample("edgeinfer", NEW, n, 1, stream) for n, stream in enumerate([40, 44, 50])]
    moving = [sample("edgeinfer", NEW, n, 1, stream) for n, stream in enumerate([40, 80, 44])]

    assert compare.states(steady) == [steady]
    assert compare.states(moving) == [[moving[0], moving[2]], [moving[1]]]


def test_the_fastest_variant_stands_for_its_engine():
    rows = [
        {"test": "tg4", "engine": engine, "tokens_per_second": rate}
        for engine, rate in [("edgeinfer", 9), ("ik/plain", 5), ("ik/rtr", 6), ("llama.cpp", 4)]
    ]

    assert [row["engine"] for row in compare.best(rows)] == ["edgeinfer", "ik/rtr", "llama.cpp"]


class Recorder:
    """A contestant that writes down when it is asked what."""

    def __init__(self, name: str, diary: list[str]) -> None:
        self.name, self.diary = name, diary

    def prepare(self, depth: int) -> None:
        self.diary.append(f"{self.name} prepares {depth}")

    def sample(self, test: Test) -> float | None:
        self.diary.append(f"{self.name} {test.name}")
        return None if test.depth and self.name == "b" else 1.0

    def close(self) -> None:
        pass


def test_engines_take_turns_and_only_runs_are_quiet(monkeypatch):
    diary: list[str] = []
    limits = Ceilings(threads=1, stream_bytes_per_second=1, int8_macs_per_second=1)
    monkeypatch.setattr(compare.ceilings, "measure", lambda threads, seconds: limits)

    @contextmanager
    def quiet():
        diary.append("(")
        yield
        diary.append(")")

    deep = Test(new_tokens=1, depth=9)
    found = compare.measure(
        [Recorder("a", diary), Recorder("b", diary)],
        [NEW, deep],
        threads=1,
        rounds=2,
        quiet=quiet,
    )

    turn = ["(", "a tg4", ")", "(", "b tg4", ")"]
    deep_turn = ["(", "a tg1 @ d9", ")", "(", "b tg1 @ d9", ")"]
    assert diary == [
        *("a prepares 0", "b prepares 0", *turn, *turn),
        *("a prepares 9", "b prepares 9", *deep_turn, *deep_turn),
    ]
    assert [(s.engine, s.test, s.round) for s in found if s.engine == "b"] == [
        ("b", NEW, 0),
        ("b", NEW, 1),
    ]


@pytest.fixture
def program(tmp_path: Path):
    """``program(help)``: a llama-bench that reports its arguments in place of speed."""

    def make(help_text: str) -> Path:
        path = tmp_path / "llama-bench"
        log = tmp_path / "arguments"
        record = json.dumps([{"avg_ts": 12.5}])
        path.write_text(
            "#!/bin/sh\n"
            f'if [ "$1" = --help ]; then echo "{help_text}"; exit; fi\n'
            f"echo \"$@\" > {log}; echo '{record}'\n"
        )
        path.chmod(path.stat().st_mode | stat.S_IEXEC)
        return path

    return make


def arguments(program: Path, test: Test, kv: str = "f16") -> str | None:
    """What the program was called with for a test; None if it was not called."""
    setting = contestants.Setting(model=Path("m.gguf"), threads=2, context=64, kv_types=(kv, kv))
    engine = contestants.llama_bench(f"ik/rtr={program} -rtr 1", setting)
    assert engine.name == "ik/rtr"
    rate = engine.sample(test)
    if rate is None:
        return None
    assert rate == 12.5
    return (program.parent / "arguments").read_text().strip()


def test_llama_bench_is_asked_for_one_test(program):
    path = program("-d, --n-depth")

    assert arguments(path, Test(prompt_tokens=512)) == (
        "-rtr 1 -m m.gguf -t 2 -o json -r 1 -p 512 -n 0"
    )
    assert arguments(path, EIGHT, kv="q8_0") == (
        "-rtr 1 -m m.gguf -t 2 -o json -r 5 -ctk q8_0 -ctv q8_0 -p 8 -n 0"
    )
    assert arguments(path, Test(new_tokens=64, depth=99)) == (
        "-rtr 1 -m m.gguf -t 2 -o json -r 1 -p 0 -n 64 -d 99"
    )


def test_an_old_llama_bench_generates_behind_a_prompt_and_reads_none_there(program):
    path = program("-gp pp,tg")
    contestants._help.cache_clear()

    assert arguments(path, Test(new_tokens=64, depth=99)) == (
        "-rtr 1 -m m.gguf -t 2 -o json -r 1 -p 0 -n 0 -gp 99,64"
    )
    assert arguments(path, Test(prompt_tokens=64, depth=99)) is None


def test_a_summary_has_a_line_a_test_and_a_column_a_peer():
    samples = [
        *(sample("edgeinfer", EIGHT, n, rate) for n, rate in enumerate([200, 220, 240])),
        *(sample("ik/plain", EIGHT, n, 100) for n in range(3)),
        *(sample("ik/rtr", EIGHT, n, 50) for n in range(3)),
    ]
    about = {"model": "m", "kv": "f16", "threads": 2, "state": 0}
    rows = [about | row for row in compare.rows_of(samples, lambda engine: WORK, batch=512)]

    (line,) = summary.lines(rows)

    assert line["test"] == "pp8"
    assert line["edgeinfer, tokens/s"] == 220
    assert line["of ceiling"] == pytest.approx(0.22)
    assert line["ik"] == "2.20x (2.00 to 2.40)"
