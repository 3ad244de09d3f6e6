"""The kernels around the matrix products, on every instruction set, against float64 NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeinfer import _native

Array = NDArray[np.float64]
every_isa = pytest.mark.parametrize("isa", _native.isas())
SIZES = [1, 3, 16, 17, 64, 100, 576, 4097]


def normal(*shape: int, seed: int = 0, scale: float = 1) -> NDArray[np.float32]:
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


@every_isa
def test_quantize_rounds_to_nearest_even_with_halves_a_power_of_two_apart(isa: str) -> None:
    x = normal(5, 96, scale=3)
    x[0, :16] = 0
    x[1, :16] = np.arange(-127, 129, 16)[:16] / 2  # halves: ties
    x[1, 0] = 127
    x[2, :16] *= 100
    x[3, 16:32] *= 1e-6
    x[4, :32] = 0

    q, scale, total_q, total = _native.quantize(isa, x)

    blocks = x.reshape(5, 6, 16)
    amax = np.abs(blocks).max(axis=2)
    largest = np.repeat(amax.reshape(5, 3, 2).max(axis=2), 2, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        halvings = np.clip(np.floor(np.log2(largest / amax)), 0, 12)
        inverse = np.where(largest > 0, np.exp2(halvings) * (np.float32(127) / largest), 0)
    np.testing.assert_allclose(
        scale, np.where(largest > 0, largest / np.float32(127) / np.exp2(halvings), 0), rtol=1e-7
    )
    expected = np.rint(blocks * np.nan_to_num(inverse)[:, :, None].astype(np.float32))
    np.testing.assert_array_equal(q.reshape(5, 6, 16), expected)
    np.testing.assert_array_equal(total_q, expected.sum(axis=2))
    np.testing.assert_allclose(total, scale * expected.sum(axis=2), rtol=1e-6)


@every_isa
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 1e-45, 3e38, -1e-30])
def test_quantize_survives_odd_values(isa: str, odd: float) -> None:
    x = normal(1, 32)
    x[0, 3] = odd

    q, _, total_q, _ = _native.quantize(isa, x)

    assert np.abs(q.astype(int)).max() <= 127
    np.testing.assert_array_equal(total_q[0], q.reshape(2, 16).astype(int).sum(axis=1))


@every_isa
def test_quantize_keeps_not_a_number_visible(isa: str) -> None:
    x = normal(1, 64)
    x[0, 3] = np.nan

    _, scale, _, _ = _native.quantize(isa, x)

    assert np.isnan(scale[0, :2]).all() and np.isfinite(scale[0, 2:]).all()


@every_isa
@pytest.mark.parametrize("size", SIZES)
def test_rms_norm(isa: str, size: int) -> None:
    x, w = normal(size, scale=5), normal(size, seed=1)

    y = _native.rms_norm(isa, x, w, 1e-5)

    x64 = x.astype(np.float64)
    expected = x64 / np.sqrt(np.mean(x64**2) + 1e-5) * w
    np.testing.assert_allclose(y, expected, rtol=2e-6)


@every_isa
@pytest.mark.parametrize("size", SIZES)
def test_layer_norm(isa: str, size: int) -> None:
    x = normal(size, scale=5) + np.float32(20)  # a mean that matters
    w, b = normal(size, seed=1), normal(size, seed=2)

    y = _native.layer_norm(isa, x, w, b, 1e-5)

    x64 = x.astype(np.float64)
    expected = (x64 - x64.mean()) / np.sqrt(x64.var() + 1e-5) * w + b
    np.testing.assert_allclose(y, expected, atol=1e-5)


@every_isa
@pytest.mark.parametrize("neighbours", [True, False])
@pytest.mark.parametrize(
    ("head_dim", "rope_dim"), [(64, 64), (80, 80), (128, 32), (96, 12), (2, 2)]
)
def test_rope(isa: str, neighbours: bool, head_dim: int, rope_dim: int) -> None:
    x = normal(3, head_dim)
    angles = np.random.default_rng(2).uniform(-7, 7, rope_dim // 2)
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    y = _native.rope(isa, x, cos, sin, neighbours)

    expected = x.astype(np.float64)
    half = rope_dim // 2
    a, b = (slice(0, rope_dim, 2), slice(1, rope_dim, 2))
    if not neighbours:
        a, b = slice(0, half), slice(half, rope_dim)
    turned = (x[:, a] + 1j * x[:, b].astype(np.float64)) * np.exp(1j * angles)
    expected[:, a], expected[:, b] = turned.real, turned.imag
    np.testing.assert_allclose(y, expected, atol=1e-6)


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


@every_isa
@pytest.mark.parametrize("size", SIZES)
def test_gates(isa: str, size: int) -> None:
    gate, up = np.linspace(-12, 12, size).astype(np.float32), normal(size)
    gate64, up64 = gate.astype(np.float64), up.astype(np.float64)

    np.testing.assert_allclose(_native.silu_mul(isa, gate, up), silu(gate64) * up64, rtol=2e-6)
    np.testing.assert_allclose(
        _native.gelu_mul(isa, gate, up), gelu(gate64) * up64, rtol=1e-5, atol=1e-7
    )


@every_isa
@pytest.mark.parametrize("size", SIZES)
def test_clamped_swiglu(isa: str, size: int) -> None:
    gate, up = np.linspace(-12, 12, size).astype(np.float32), 8 * normal(size)
    gate[size // 2] = np.nan
    g, u = np.minimum(gate, 7).astype(np.float64), np.clip(up, -7, 7).astype(np.float64)

    expected = g / (1 + np.exp(-1.702 * g)) * (u + 1)
    found = _native.clamped_swiglu(isa, gate, up)

    np.testing.assert_allclose(found, expected, rtol=3e-6, atol=1e-9)
    assert np.isnan(found[size // 2])


@every_isa
@pytest.mark.parametrize("size", SIZES)
def test_gelu(isa: str, size: int) -> None:
    x = np.linspace(-12, 12, size).astype(np.float32)

    expected = gelu(x.astype(np.float64))
    np.testing.assert_allclose(_native.gelu(isa, x), expected, rtol=1e-5, atol=1e-7)


@every_isa
def test_gates_far_out(isa: str) -> None:
    gate = np.array([-1e30, -1000, -90, 90, 1000, 1e30, np.nan, 0], dtype=np.float32)
    up = np.ones_like(gate)

    for y in (_native.silu_mul(isa, gate, up), _native.gelu_mul(isa, gate, up)):
        np.testing.assert_allclose(y[1:3], 0, atol=1e-30)
        np.testing.assert_array_equal(y[3:5], gate[3:5])
        assert np.isnan(y[6]) and y[7] == 0


@every_isa
@pytest.mark.parametrize("size", SIZES)
def test_scale_and_cap(isa: str, size: int) -> None:
    x = np.linspace(-200, 200, size).astype(np.float32)
    x64 = 0.25 * x.astype(np.float64)

    capped = _native.scale_and_cap(isa, x, 0.25, 30.0)
    scaled = _native.scale_and_cap(isa, x, 0.25, 0.0)

    np.testing.assert_allclose(capped, 30 * np.tanh(x64 / 30), atol=1e-5)
    np.testing.assert_array_equal(scaled, x64.astype(np.float32))


@every_isa
def test_a_cap_far_out(isa: str) -> None:
    x = np.array([-np.inf, -1e30, 1e30, np.inf, np.nan, 0], dtype=np.float32)

    y = _native.scale_and_cap(isa, x, 1.0, 30.0)

    np.testing.assert_allclose(y[:4], [-30, -30, 30, 30], rtol=1e-6)
    assert np.isnan(y[4]) and y[5] == 0


@every_isa
@pytest.mark.parametrize("size", SIZES)
def test_add_scaled(isa: str, size: int) -> None:
    x, y = normal(size), normal(size, seed=1)

    out = _native.add_scaled(isa, y, x, 0.3)

    np.testing.assert_allclose(out, y + np.float64(np.float32(0.3)) * x, atol=1e-6)


@every_isa
@pytest.mark.parametrize("size", SIZES)
def test_gates_of_recurrent_layers(isa: str, size: int) -> None:
    y, x = normal(size), normal(size, seed=1, scale=3)

    np.testing.assert_array_equal(_native.multiply(isa, y, x), y * x)
    wanted = y / (1 + np.exp(-x.astype(np.float64)))
    np.testing.assert_allclose(_native.sigmoid_mul(isa, y, x), wanted, rtol=1e-5, atol=1e-7)


@every_isa
@pytest.mark.parametrize("taps", [2, 3, 4, 16])
@pytest.mark.parametrize("size", SIZES)
def test_convolve(isa: str, size: int, taps: int) -> None:
    rows, w = normal(taps, size), normal(taps, size, seed=1)

    plain = _native.convolve(isa, rows, w, False)
    through_silu = _native.convolve(isa, rows, w, True)

    wanted = (rows.astype(np.float64) * w).sum(axis=0)
    np.testing.assert_allclose(plain, wanted, atol=1e-5)
    np.testing.assert_allclose(through_silu, wanted / (1 + np.exp(-wanted)), atol=1e-5)


def delta(
    q: Array, k: Array, v: Array, decay: Array, beta: Array, state: Array
) -> tuple[Array, Array]:
    """The gated delta rule as it is written down."""
    out = []
    for t in range(len(q)):
        state = decay[t] * state
        state = state + np.outer(k[t], beta[t] * (v[t] - k[t] @ state))
        out.append(q[t] @ state)
    return np.array(out), state


def delta_inputs(tokens: int, dim: int) -> list[NDArray[np.float32]]:
    random = np.random.default_rng(5)
    k = normal(tokens, dim, seed=2)
    k /= np.linalg.norm(k, axis=1, keepdims=True)
    decay, beta = random.uniform(0.5, 1, tokens), random.uniform(0, 1, tokens)
    return [
        normal(tokens, dim, seed=1),
        k,
        normal(tokens, 16, seed=3),
        decay.astype(np.float32),
        beta.astype(np.float32),
        normal(dim, 16, seed=4),
    ]


@every_isa
@pytest.mark.parametrize("dim", [16, 32, 128])
@pytest.mark.parametrize("tokens", [1, 2, 40])
def test_delta_rule(isa: str, tokens: int, dim: int) -> None:
    inputs = delta_inputs(tokens, dim)

    out, state = _native.delta_rule(isa, *inputs)

    wanted, left = delta(*(x.astype(np.float64) for x in inputs))
    np.testing.assert_allclose(out, wanted, atol=2e-5)
    np.testing.assert_allclose(state, left, atol=1e-5)


@every_isa
def test_delta_rule_gives_the_same_bits_token_by_token(isa: str) -> None:
    q, k, v, decay, beta, state = delta_inputs(40, 64)

    whole, whole_state = _native.delta_rule(isa, q, k, v, decay, beta, state)
    rows = []
    for t in range(40):
        one = slice(t, t + 1)
        out, state = _native.delta_rule(isa, q[one], k[one], v[one], decay[one], beta[one], state)
        rows.append(out[0])

    np.testing.assert_array_equal(np.array(rows), whole)
    np.testing.assert_array_equal(state, whole_state)


def attention(
    q: Array, k: Array, v: Array, visible: NDArray[np.bool_], scale: float, softcap: float
) -> tuple[Array, Array]:
    """The weighted values and the log of the sum of exponentials."""
    scores = scale * (q @ k.T)
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    scores[~visible] = -np.inf
    peak = scores.max(axis=1)
    p = np.exp(scores - peak[:, None])
    return p @ v / p.sum(axis=1)[:, None], peak + np.log(p.sum(axis=1))


@every_isa
@pytest.mark.parametrize("kind", ["f32", "f16"])
@pytest.mark.parametrize("head_dim", [2, 20, 64, 80, 128, 256])
@pytest.mark.parametrize(("queries", "positions"), [(1, 1), (1, 17), (4, 200), (37, 333)])
def test_attention(isa: str, kind: str, head_dim: int, queries: int, positions: int) -> None:
    q, k = normal(queries, head_dim), normal(positions, head_dim, seed=1)
    v = normal(positions, head_dim, seed=2)
    end = np.linspace(positions - queries // 2, positions, queries).astype(np.int32)
    end = np.maximum(end, 1)
    begin = np.maximum(0, end - 100).astype(np.int32)
    scale = float(np.float32(head_dim**-0.5))

    out, peak, total = _native.attend(
        isa, q, k, v, begin, end, 0, positions, scale, 0.0, kind, kind
    )

    if kind == "f16":
        k, v = k.astype(np.float16), v.astype(np.float16)
    at = np.arange(positions)
    visible = (at >= begin[:, None]) & (at < end[:, None])
    q64, k64, v64 = (a.astype(np.float64) for a in (q, k, v))
    expected, log_sum = attention(q64, k64, v64, visible, scale, 0)
    np.testing.assert_allclose(out / total[:, None], expected, atol=3e-6)
    np.testing.assert_allclose(peak * np.log(2) + np.log(total), log_sum, atol=3e-6)


@every_isa
def test_attention_with_softcap(isa: str) -> None:
    q, k, v = normal(5, 64, scale=6), normal(90, 64, seed=1), normal(90, 64, seed=2)
    begin, end = np.zeros(5, dtype=np.int32), np.full(5, 90, dtype=np.int32)

    out, _, total = _native.attend(isa, q, k, v, begin, end, 0, 90, 1.0, 30.0, "f32", "f32")

    q64, k64, v64 = (a.astype(np.float64) for a in (q, k, v))
    expected, _ = attention(q64, k64, v64, np.ones((5, 90), bool), 1.0, 30.0)
    np.testing.assert_allclose(out / total[:, None], expected, atol=2e-5)


@every_isa
def test_attention_ranges_merge(isa: str) -> None:
    """Two ranges of positions, combined by max and sum, are the whole."""
    q, k, v = normal(6, 64), normal(100, 64, seed=1), normal(100, 64, seed=2)
    begin = np.array([0, 5, 20, 40, 70, 0], dtype=np.int32)
    end = np.array([100, 90, 31, 64, 100, 1], dtype=np.int32)
    whole, _, total = _native.attend(isa, q, k, v, begin, end, 0, 100, 0.125)

    parts = [_native.attend(isa, q, k, v, begin, end, *r, 0.125) for r in ((0, 48), (48, 100))]

    peak = np.maximum(parts[0][1], parts[1][1])
    factors = [np.exp2(part[1] - peak) for part in parts]
    out = sum(f[:, None] * part[0] for f, part in zip(factors, parts, strict=True))
    sums = sum(f * part[2] for f, part in zip(factors, parts, strict=True))
    np.testing.assert_allclose(out / sums[:, None], whole / total[:, None], atol=2e-6)


@every_isa
def test_attention_that_sees_nothing(isa: str) -> None:
    q, k, v = normal(2, 64), normal(40, 64, seed=1), normal(40, 64, seed=2)
    begin, end = np.array([0, 30], dtype=np.int32), np.array([16, 40], dtype=np.int32)

    out, peak, total = _native.attend(isa, q, k, v, begin, end, 0, 16, 0.125)

    assert np.isfinite(peak[0]) and total[0] > 0
    assert peak[1] == -np.inf and total[1] == 0
    np.testing.assert_array_equal(out[1], 0)


@every_isa
def test_attention_does_not_depend_on_the_other_queries(isa: str) -> None:
    q, k, v = normal(30, 64), normal(150, 64, seed=1), normal(150, 64, seed=2)
    begin, end = np.zeros(30, dtype=np.int32), np.full(30, 150, dtype=np.int32)
    together, _, _ = _native.attend(isa, q, k, v, begin, end, 0, 150, 0.125)

    for i in (0, 1, 13, 29):
        alone, _, _ = _native.attend(
            isa, q[i : i + 1].copy(), k, v, begin[:1], end[:1], 0, 150, 0.125
        )
        np.testing.assert_array_equal(alone[0], together[i])


BLOCK_TYPES = {"q8_0": 127, "q4_0": 8}  # levels on the longer side of zero


def as_kept(x: NDArray[np.float32], kind: str) -> Array:
    """The values as a type of 32 with one half scale keeps them at best, by plain rounding."""
    blocks = x.astype(np.float64).reshape(-1, 32)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / BLOCK_TYPES[kind]
    return (np.rint(blocks / scale) * scale).reshape(x.shape)


@every_isa
@pytest.mark.parametrize("v_type", ["f32", "f16", "bf16", "q8_0", "q4_0"])
@pytest.mark.parametrize("k_type", ["f32", "f16", "bf16", "q8_0", "q4_0"])
def test_attention_on_caches_of_every_pair_of_types(isa: str, k_type: str, v_type: str) -> None:
    """No pair is further from float64 than plain rounding to the block types, and int8 queries."""
    q, k, v = normal(7, 64), normal(300, 64, seed=1), normal(300, 64, seed=2)
    begin, end = np.zeros(7, dtype=np.int32), np.arange(294, 301, dtype=np.int32)

    out, _, total = _native.attend(isa, q, k, v, begin, end, 0, 300, 0.125, 0.0, k_type, v_type)

    visible = np.arange(300) < end[:, None]
    rounded = [
        as_kept(x, kind) if kind in BLOCK_TYPES else x.astype(np.float64)
        for x, kind in ((k, k_type), (v, v_type))
    ]
    exact, _ = attention(q.astype(np.float64), k, v, visible, 0.125, 0)
    plain, _ = attention(q.astype(np.float64), *rounded, visible, 0.125, 0)
    floats = 4e-3 if "bf16" in (k_type, v_type) else 3e-4
    allowed = np.sqrt(np.mean((plain - exact) ** 2)) + floats + (k_type in BLOCK_TYPES) * 1e-3
    assert np.sqrt(np.mean((out / total[:, None] - exact) ** 2)) < allowed


@every_isa
@pytest.mark.parametrize("kind", ["f16", "q8_0", "q4_0"])
def test_attention_has_the_same_bits_alone_and_block_by_block(isa: str, kind: str) -> None:
    q, k, v = normal(30, 64), normal(700, 64, seed=1), normal(700, 64, seed=2)
    begin, end = np.full(30, 100, dtype=np.int32), np.full(30, 690, dtype=np.int32)
    types = {"k_type": kind, "v_type": kind}
    together, peak, total = _native.attend(isa, q, k, v, begin, end, 0, 700, 0.125, **types)

    for i in (0, 5, 29):
        one = slice(i, i + 1)
        alone = _native.attend(
            isa, q[one].copy(), k, v, begin[one], end[one], 0, 700, 0.125, **types
        )
        np.testing.assert_array_equal(alone[0][0], together[i])
        assert (alone[1][0], alone[2][0]) == (peak[i], total[i])
