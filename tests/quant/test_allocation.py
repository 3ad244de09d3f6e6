"""Allocation beside brute force, and beside a bound that holds for any solution."""

from __future__ import annotations

import itertools
import random

import pytest

from edgeinfer.errors import UsageError
from edgeinfer.quant import allocation
from edgeinfer.quant.allocation import Allocation, Option, allocate


def random_options(rng: random.Random, tensors: int, scale: int = 1) -> dict[str, list[Option]]:
    """Types of tensors of several sizes: losses fall about fourfold a bit, with exceptions."""
    options = {}
    for number in range(tensors):
        weights = rng.choice([64, 192, 256, 1024]) * scale
        sensitivity = rng.lognormvariate(0, 1.5)
        options[f"t{number}"] = [
            Option(
                f"q{bits}",
                weights * bits // 8 + rng.randrange(8),
                sensitivity * 4.0**-bits * rng.uniform(0.5, 2),
            )
            for bits in (2, 3, 4, 5, 6, 8)
        ]
    return options


def least(options: dict[str, list[Option]]) -> int:
    return sum(min(option.nbytes for option in each) for each in options.values())


@pytest.mark.parametrize("seed", range(40))
def test_no_combination_is_better(seed: int) -> None:
    rng = random.Random(seed)
    options = random_options(rng, 4)
    limit = int(least(options) * rng.uniform(1, 3.5))
    best = min(
        sum(option.loss for option in chosen)
        for chosen in itertools.product(*options.values())
        if sum(option.nbytes for option in chosen) <= limit
    )

    found = allocate(options, limit)

    assert found.nbytes <= limit
    assert found.loss == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("share", [1.3, 2.0, 3.0])
def test_with_many_large_tensors_the_bound_of_lagrange_is_met(share: float) -> None:
    options = random_options(random.Random(7), 200, scale=10**4)
    limit = int(least(options) * share)

    found = allocate(options, limit)

    def bound(price: float) -> float:
        """No choice that fits can lose less (Everett, 1963)."""
        paid = sum(min(o.loss + price * o.nbytes for o in each) for each in options.values())
        return paid - price * limit

    best = max(bound(10.0 ** (-exponent / 50)) for exponent in range(200, 600))
    assert found.nbytes <= limit
    assert best <= found.loss <= best * 1.005


def test_what_rounding_leaves_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "UNITS", 4)
    options = {"a": [Option("q2", 100, 1.0), Option("q4", 201, 0.5)], "b": [Option("q2", 10, 0.0)]}

    assert allocate(options, 311).chosen["a"].type == "q4"


def test_room_enough_takes_the_best_of_everything() -> None:
    options = random_options(random.Random(3), 20)

    found = allocate(options, 10**9)

    assert found.loss == pytest.approx(sum(min(o.loss for o in e) for e in options.values()))


def test_too_little_room_is_refused() -> None:
    options = {"a": [Option("q2", 10, 1.0), Option("q4", 20, 0.5)]}

    with pytest.raises(UsageError, match="10 bytes are the least"):
        allocate(options, 9)


def test_a_type_that_is_larger_and_worse_is_never_taken() -> None:
    options = {"a": [Option("good", 10, 1.0), Option("bad", 12, 1.5)]}

    assert allocate(options, 100) == Allocation({"a": options["a"][0]})
