"""Times an engine: reading a prompt and generating, at any depth of context.

A test is named as llama-bench names it: ``pp512`` reads 512 tokens, ``tg128`` generates 128 one at
a time, ``@ d8192`` does so behind 8192 tokens that were read before. Tokens are random and nothing
is sampled; logits are computed where a caller would want them. The tests of a depth take turns,
round by round, and ceilings (``edgeinfer.device.ceilings``) are measured within each round, so
that what slows the machine slows all alike.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from edgeinfer.arch.tensors import LOOKED_UP
from edgeinfer.backends.adapters import open_adapted
from edgeinfer.backends.base import AdapterUse, Engine, Slice
from edgeinfer.device.ceilings import Ceilings

LEAST_SECONDS = 0.2  # a sample; shorter tests are repeated


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """Something to time: reading a prompt, or generating."""

    __test__ = False  # not one of pytest's

    prompt_tokens: int = 0  # read in steps of the batch
    new_tokens: int = 0  # a step each
    depth: int = 0  # tokens that are in the context before

    @property
    def name(self) -> str:
        """As llama-bench has it."""
        kind = f"pp{self.prompt_tokens}" if self.prompt_tokens else f"tg{self.new_tokens}"
        return f"{kind} @ d{self.depth}" if self.depth else kind

    @property
    def tokens(self) -> int:
        """The tokens it takes."""
        return self.prompt_tokens + self.new_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What the matrices of a model cost. Attention and vectors are not counted.

    Of experts, those count that one token takes: a step of many tokens reads more of them.
    """

    parameters: int
    weight_bytes: int  # read in each step
    layer_macs: int  # multiply-adds a token
    output_macs: int  # multiply-adds for a row of logits

    def bytes(self, test: Test, batch: int) -> int:
        """Bytes of weights that a test reads."""
        return self.weight_bytes * (test.new_tokens + -(-test.prompt_tokens // batch))

    def macs(self, test: Test) -> int:
        """Multiply-adds of a test; of a prompt, logits are wanted of the last token only."""
        rows = test.new_tokens or 1
        return self.layer_macs * test.tokens + self.output_macs * rows


def work_of(
    tensors: Mapping[str, tuple[tuple[int, ...], int]], metadata: Mapping[str, Any]
) -> Work:
    """The work of a GGUF's tensors.

    Args:
        tensors: name to shape, (rows, columns), (experts, rows, columns) or (length,), and the
            bytes that are read of it: as in the file or as an engine keeps them.
        metadata: of the file; says how many of the experts a token takes.
    """
    architecture = metadata.get("general.architecture")
    experts, used = (metadata.get(f"{architecture}.expert_{n}") for n in ("count", "used_count"))
    taken = Fraction(used, experts) if experts and used else Fraction(1)
    embedding, output = "token_embd.weight", "output.weight"
    if output not in tensors:  # tied: the embedding is the output matrix as well
        output = embedding
    vocabulary = (embedding, output)
    layers = {
        name: taken if len(shape) == 3 else Fraction(1)
        for name, (shape, _) in tensors.items()
        if len(shape) > 1 and name not in vocabulary and name not in LOOKED_UP
    }
    return Work(
        parameters=sum(math.prod(shape) for shape, _ in tensors.values()),
        weight_bytes=round(sum(tensors[name][1] * share for name, share in layers.items()))
        + tensors[output][1],
        layer_macs=round(sum(math.prod(tensors[n][0]) * share for n, share in layers.items())),
        output_macs=math.prod(tensors[output][0]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A test's tokens per second in each round, and the ceilings of the same rounds."""

    test: Test
    samples: tuple[float, ...]
    ceilings: tuple[Ceilings, ...] = ()  # one a sample, or none

    @property
    def tokens_per_second(self) -> float:
        """The mean, as llama-bench reports it."""
        return statistics.fmean(self.samples)

    @property
    def deviation(self) -> float:
        """The sample standard deviation; 0 of a single round."""
        return statistics.stdev(self.samples) if len(self.samples) > 1 else 0.0

    def bytes_per_second(self, work: Work, batch: int) -> float:
        """How fast weights were read."""
        return self.tokens_per_second * work.bytes(self.test, batch) / self.test.tokens

    def macs_per_second(self, work: Work) -> float:
        """How fast was multiplied."""
        return self.tokens_per_second * work.macs(self.test) / self.test.tokens

    def of_stream(self, work: Work, batch: int) -> float | None:
        """The share of the memory's speed: the median over the rounds."""
        per_token = work.bytes(self.test, batch) / self.test.tokens
        return self._share([c.stream_bytes_per_second for c in self.ceilings], per_token)

    def of_peak(self, work: Work) -> float | None:
        """The share of the processor's integer peak: the median over the rounds."""
        per_token = work.macs(self.test) / self.test.tokens
        return self._share([c.int8_macs_per_second for c in self.ceilings], per_token)

    def _share(self, limits: Sequence[float], per_token: float) -> float | None:
        if not limits:
            return None
        pairs = zip(self.samples, limits, strict=True)
        return statistics.median(sample * per_token / limit for sample, limit in pairs)


class Bench:
    """Runs tests on an engine. One sequence holds the context; it is refilled only to grow."""

    def __init__(
        self,
        engine: Engine,
        *,
        batch: int,
        least_seconds: float = LEAST_SECONDS,
        adapters: Sequence[AdapterUse] = (),
    ) -> None:
        self._engine = engine
        self._batch = batch
        self._least_seconds = least_seconds
        self._random = np.random.default_rng(0)
        self._sequence = open_adapted(engine, adapters)
        self._length = 0  # tokens in the sequence

    def fill(self, depth: int) -> None:
        """Makes the context ``depth`` tokens long; not part of any test."""
        if self._length > depth:
            self._length = self._engine.trim(self._sequence, depth)
        self._read(depth - self._length)

    def seconds(self, test: Test) -> float:
        """The time of one run of a test; the mean of several if it is short."""
        self.fill(test.depth)
        spent, runs = 0.0, 0
        while spent < self._least_seconds or not runs:
            start = time.perf_counter()
            self._run(test)
            spent += time.perf_counter() - start
            runs += 1
            self.fill(test.depth)
        return spent / runs

    def warm_up(self, test: Test) -> None:
        """Runs a little of a test: its first step."""
        self.fill(test.depth)
        self._read(min(test.prompt_tokens, self._batch) or 1)
        self.fill(test.depth)

    def generate(self) -> None:
        """Generates a token."""
        self._read(1)

    def close(self) -> None:
        """Gives the context back."""
        self._engine.close(self._sequence)

    def _run(self, test: Test) -> None:
        self._read(test.prompt_tokens)
        for _ in range(test.new_tokens):
            self.generate()

    def _read(self, count: int) -> None:
        tokens = self._tokens(count)
        for at in range(0, count, self._batch):
            chunk = tokens[at : at + self._batch]
            last = at + len(chunk) == count
            self._engine.step([Slice(self._sequence, chunk, wants_logits=int(last))])
        self._length += count

    def _tokens(self, count: int) -> list[int]:
        tokens: list[int] = self._random.integers(
            self._engine.config.vocab_size, size=count
        ).tolist()
        return tokens


def run(
    bench: Bench,
    tests: Sequence[Test],
    *,
    rounds: int,
    ceilings: Callable[[], Ceilings] | None = None,
    progress: Callable[[str], None] = lambda name: None,
) -> list[Result]:
    """Runs every test ``rounds`` times, in turns; the results are in the tests' order.

    Args:
        bench: the engine.
        tests: at any depths; the shallow ones run first.
        rounds: samples of each test.
        ceilings: measures what the machine can do, once a round.
        progress: called with the name of what runs next.
    """
    samples: dict[Test, list[float]] = {test: [] for test in tests}
    limits: dict[Test, list[Ceilings]] = {test: [] for test in tests}
    for depth in sorted({test.depth for test in tests}):
        turn = [test for test in samples if test.depth == depth]
        for test in turn:
            bench.warm_up(test)
        for number in range(rounds):
            for test in turn:
                progress(f"{test.name}, round {number + 1} of {rounds}")
                samples[test].append(test.tokens / bench.seconds(test))
            if ceilings is not None:
                measured = ceilings()
                for test in turn:
                    limits[test].append(measured)
    return [
        Result(test=test, samples=tuple(samples[test]), ceilings=tuple(limits[test]))
        for test in samples
    ]
