"""The scales of a cache of 8 bits hold for texts that are longer than what was read for them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from edgeinfer.arch.config import RopeStyle, RopeTable
from edgeinfer_converters.onnx.scales import _largest

FREQUENCIES = 10000.0 ** (-np.arange(24) / 24)  # the slowest turns by 0.7 in 10,000 tokens
CONFIG = SimpleNamespace(
    rope_tables=[RopeTable(inverse_frequencies=tuple(FREQUENCIES))], layer_rope=(0, -1)
)


def turned(keys: np.ndarray, style: RopeStyle, position: float) -> np.ndarray:
    """Rotates 48 of 64 lanes."""
    angles = position * FREQUENCIES
    halves = (slice(0, 24), slice(24, 48))
    if style is RopeStyle.NEIGHBOURS:
        halves = (slice(0, 48, 2), slice(1, 48, 2))
    first, second = (keys[..., part] for part in halves)
    out = keys.copy()
    out[..., halves[0]] = first * np.cos(angles) - second * np.sin(angles)
    out[..., halves[1]] = first * np.sin(angles) + second * np.cos(angles)
    return out


@pytest.mark.parametrize("style", RopeStyle)
def test_keys_never_turn_beyond_the_largest(style):
    CONFIG.rope_style = style
    rng = np.random.Generator(np.random.PCG64(5))
    keys = rng.standard_normal((2, 40, 64)).astype(np.float32)
    keys[..., ::2] *= 8  # so that lanes of a pair differ

    largest = _largest(keys, CONFIG, 0, True)

    assert largest.shape == (2, 64)
    for position in (0, 10, 3000, 10_000, 100_000):
        assert (np.abs(turned(keys, style, position)) <= 1.0001 * largest[:, None]).all()
    # Lanes that are not turned, layers without rotation and values have their own.
    alone = np.abs(keys).max(axis=1)
    np.testing.assert_allclose(largest[:, 48:], alone[:, 48:], rtol=1e-6)
    assert (largest[:, :48] > alone[:, :48]).mean() > 0.5
    for layer, is_keys in ((1, True), (0, False)):
        np.testing.assert_allclose(_largest(keys, CONFIG, layer, is_keys), alone, rtol=1e-6)
