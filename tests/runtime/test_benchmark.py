"""Timing on an engine whose tokens take as long as the test says."""

from __future__ import annotations

import pytest

from edgeinfer.backends import fake
from edgeinfer.device.ceilings import Ceilings
from edgeinfer.runtime.benchmark import Bench, Result, Test, Work, run, work_of

SECONDS_A_TOKEN = 0.002


@pytest.fixture
def engine():
    backend = fake.FakeBackend(seconds_per_token=SECONDS_A_TOKEN)
    return fake.FakeEngine(backend, context=64)


def steps(engine) -> list[tuple[int, int]]:
    """(tokens, rows of logits wanted) of each step so far."""
    return [(len(part.tokens), part.wants_logits) for step in engine.steps for part in step]


@pytest.mark.parametrize(
    ("test", "name"),
    [
        (Test(prompt_tokens=512), "pp512"),
        (Test(new_tokens=128), "tg128"),
        (Test(prompt_tokens=8, depth=8192), "pp8 @ d8192"),
        (Test(new_tokens=16, depth=1), "tg16 @ d1"),
    ],
)
def test_names_are_llama_benchs(test, name):
    assert test.name == name


def test_a_prompt_is_read_in_batches_and_wants_logits_of_its_last_token(engine):
    Bench(engine, batch=16, least_seconds=0).seconds(Test(prompt_tokens=40))

    assert steps(engine) == [(16, 0), (16, 0), (8, 1)]


def test_generating_is_a_step_a_token(engine):
    Bench(engine, batch=16, least_seconds=0).seconds(Test(new_tokens=3))

    assert steps(engine) == [(1, 1)] * 3


def test_the_depth_is_read_once_and_every_run_begins_there(engine):
    bench = Bench(engine, batch=16, least_seconds=0)
    for _ in range(3):
        bench.seconds(Test(new_tokens=1, depth=20))

    assert steps(engine) == [(16, 0), (4, 1), (1, 1), (1, 1), (1, 1)]
    # The engine's own count: what is left of the context is 64 - 20.
    bench.seconds(Test(new_tokens=44, depth=20))
    with pytest.raises(Exception, match="holds 64"):
        bench.seconds(Test(new_tokens=45, depth=20))


def test_a_short_test_is_repeated_and_the_time_is_of_one_run(engine):
    seconds = Bench(engine, batch=16, least_seconds=0.05).seconds(Test(prompt_tokens=5))

    assert len(steps(engine)) >= 3
    assert 5 * SECONDS_A_TOKEN <= seconds < 25 * SECONDS_A_TOKEN


def test_the_tests_take_turns_and_the_ceilings_with_them(engine):
    order = []
    limits = Ceilings(threads=2, stream_bytes_per_second=1e9, int8_macs_per_second=1e9)

    results = run(
        Bench(engine, batch=16, least_seconds=0),
        [Test(new_tokens=1, depth=9), Test(prompt_tokens=2), Test(new_tokens=1)],
        rounds=2,
        ceilings=lambda: order.append("ceilings") or limits,
        progress=lambda name: order.append(name.split(",")[0]),
    )

    shallow, deep = ["pp2", "tg1", "ceilings"], ["tg1 @ d9", "ceilings"]
    assert order == 2 * shallow + 2 * deep
    assert [result.test.name for result in results] == ["tg1 @ d9", "pp2", "tg1"]
    assert all(len(result.samples) == 2 and result.ceilings == (limits,) * 2 for result in results)
    assert all(0 < sample <= 1 / SECONDS_A_TOKEN for r in results for sample in r.samples)


def test_mean_and_deviation():
    result = Result(test=Test(new_tokens=1), samples=(10.0, 14.0))

    assert result.tokens_per_second == 12
    assert result.deviation == pytest.approx(8**0.5)
    assert Result(test=Test(new_tokens=1), samples=(10.0,)).deviation == 0


WORK = Work(parameters=0, weight_bytes=1000, layer_macs=100, output_macs=50)


def test_a_generated_token_reads_all_weights():
    test = Test(new_tokens=10)
    result = Result(test=test, samples=(4.0,))

    assert WORK.bytes(test, 16) == 10_000
    assert WORK.macs(test) == 10 * (100 + 50)
    assert result.bytes_per_second(WORK, 16) == 4000
    assert result.macs_per_second(WORK) == 600


def test_a_prompt_reads_them_once_a_batch_and_has_one_row_of_logits():
    test = Test(prompt_tokens=40)

    assert WORK.bytes(test, 16) == 3000
    assert WORK.macs(test) == 40 * 100 + 50


def test_shares_are_of_the_ceiling_of_the_same_round():
    limits = tuple(
        Ceilings(threads=1, stream_bytes_per_second=s, int8_macs_per_second=m)
        for s, m in [(8000.0, 600.0), (4000.0, 1200.0), (4000.0, 1200.0)]
    )
    result = Result(test=Test(new_tokens=1), samples=(4.0, 2.0, 2.0), ceilings=limits)

    assert result.of_stream(WORK, 16) == 0.5
    assert result.of_peak(WORK) == 2 * 150 / 1200
    assert Result(test=Test(new_tokens=1), samples=(4.0,)).of_stream(WORK, 16) is None


def test_the_work_of_a_tied_model_and_of_one_with_an_output_matrix():
    tied = {
        "token_embd.weight": ((100, 8), 900),
        "output_norm.weight": ((8,), 32),
        "blk.0.attn_q.weight": ((16, 8), 130),
        "blk.0.ffn_up.weight": ((4, 8), 40),
    }
    untied = {**tied, "output.weight": ((100, 8), 700)}

    assert work_of(tied, {}) == Work(
        parameters=968, weight_bytes=1070, layer_macs=160, output_macs=800
    )
    assert work_of(untied, {}) == Work(
        parameters=1768, weight_bytes=870, layer_macs=160, output_macs=800
    )


def test_a_token_reads_the_experts_that_it_takes():
    tensors = {
        "token_embd.weight": ((100, 8), 900),
        "blk.0.ffn_gate_inp.weight": ((4, 8), 128),
        "blk.0.ffn_up_exps.weight": ((4, 16, 8), 600),
    }
    metadata = {"general.architecture": "a", "a.expert_count": 4, "a.expert_used_count": 1}

    assert work_of(tensors, metadata) == Work(
        parameters=1344, weight_bytes=128 + 150 + 900, layer_macs=32 + 128, output_macs=800
    )
