"""What the machine can do at most, as far as a test can know it: neither nothing nor magic."""

from __future__ import annotations

import pytest

from edgeinfer import _native

MEBIBYTE = 1 << 20
# No processor reads 2 TB/s with one thread, or multiplies more than 4 x 64 bytes a cycle at 8 GHz:
# a loop that the compiler took away would.
FASTEST_READ, FASTEST_DOT = 2e12, 2e12
SLOWEST = 1e6


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("isa", _native.isas())
def test_every_pass_is_a_plausible_speed(isa: str, threads: int) -> None:
    reads = _native.stream_read(isa, 64 * MEBIBYTE, threads, 0.02)
    products = _native.int8_peak(isa, threads, 0.02)

    assert reads and products
    assert all(SLOWEST < rate < threads * FASTEST_READ for rate in reads)
    assert all(SLOWEST < rate < threads * FASTEST_DOT for rate in products)


@pytest.mark.parametrize("isa", _native.isas())
def test_no_matrix_product_is_faster_than_the_peak(isa: str) -> None:
    rows, cols, tokens = 256, 1024, 64
    seconds = _native.bench_matmul(isa, "q4_0", rows, cols, tokens, 0.05)

    assert rows * cols * tokens / seconds < 1.1 * max(_native.int8_peak(isa, 1, 0.2))


def test_passes_go_on_for_the_time_asked() -> None:
    short, long = (len(_native.int8_peak(_native.isa(), 1, s)) for s in (0.01, 0.1))

    assert 0 < short < long


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: _native.stream_read(_native.isa(), MEBIBYTE, 0, 0.01), "threads"),
        (lambda: _native.stream_read(_native.isa(), 4095, 1, 0.01), "bytes"),
        (lambda: _native.stream_read("mmx", MEBIBYTE, 1, 0.01), "mmx"),
        (lambda: _native.int8_peak(_native.isa(), 0, 0.01), "threads"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
