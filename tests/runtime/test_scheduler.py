"""Who runs in a step, and threads that share steps."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from edgeinfer.runtime.generator import collect
from edgeinfer.runtime.sequence import Sequence, common_prefix
from edgeinfer.types import SamplingParams


def test_threads_that_generate_at_once_share_steps_and_get_what_they_would_alone(rig):
    params = SamplingParams(seed=3, temperature=1.5, max_tokens=20)
    prompts = [f"prompt number {i}" * (i + 1) for i in range(6)]
    alone = rig(None)
    expected = [collect(alone.events(prompt, params=params)).tokens for prompt in prompts]
    together = rig(None, seconds_per_token=0.0005)
    start = threading.Barrier(len(prompts))

    def work(prompt):
        start.wait()
        return collect(together.events(prompt, params=params)).tokens

    with ThreadPoolExecutor(len(prompts)) as pool:
        got = list(pool.map(work, prompts))

    assert got == expected
    assert [len(tokens) for tokens in got] == [20] * len(prompts)
    assert max(len(batch) for batch in together.engine.steps) > 1
    assert len(together.engine.steps) < len(alone.engine.steps)


def test_a_step_is_never_longer_than_the_batch(rig):
    tools = rig("ok", batch=16, seconds_per_token=0.0002)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: collect(tools.events("y" * n)), [50, 60, 70, 5]))

    assert max(sum(len(s.tokens) for s in batch) for batch in tools.engine.steps) == 16


def test_a_decoding_sequence_goes_before_a_long_prompt(rig):
    tools = rig("ok", batch=4)
    short, long = tools.sequence(), tools.sequence()
    short.feed([1])
    long.feed(list(range(100)))
    scheduler = tools.scheduler
    reader = threading.Thread(target=scheduler.read, args=(long,))
    with scheduler._stepping:  # both are waiting when the first step is put together
        reader.start()
        other = threading.Thread(target=scheduler.read, args=(short,))
        other.start()
        while len(scheduler._waiting) < 2:
            pass
    reader.join()
    other.join()

    first = tools.engine.steps[0]
    assert [(s.sequence, len(s.tokens)) for s in first] == [(short.number, 1), (long.number, 3)]


def test_a_cancelled_reader_leaves_no_trace(rig):
    tools = rig(batch=4)
    sequence = tools.sequence()
    sequence.feed(list(range(20)))

    def give_up():
        raise InterruptedError

    with pytest.raises(InterruptedError):
        tools.scheduler.read(sequence, give_up)

    assert tools.scheduler._waiting == []
    assert sequence.cached == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("a", "b", "length"), [([], [1], 0), ([1, 2], [1, 2, 3], 2), ([1, 2, 3], [1, 9, 3], 1)]
)
def test_the_common_prefix(a, b, length):
    assert common_prefix(a, b) == length
    assert common_prefix(b, a) == length


def test_feed_keeps_the_prefix_and_trims_the_rest(rig):
    tools = rig()
    sequence = Sequence(tools.engine, 10)
    sequence.feed([1, 2, 3, 4])
    tools.scheduler.read(sequence)

    assert sequence.feed([1, 2, 9]) == 2
    assert (sequence.cached, sequence.pending, sequence.room) == ([1, 2], [9], 7)
