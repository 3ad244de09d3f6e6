"""What happens to rows on their way into a GGUF."""

from __future__ import annotations

import numpy as np

from edgeinfer.arch import config_from_hf
from edgeinfer.arch.config import RopeStyle
from edgeinfer.arch.transforms import TRANSFORMS, neighbour_pairs
from support import tiny


def turn(x: np.ndarray, angles: np.ndarray, style: RopeStyle) -> np.ndarray:
    """Rotates one head's vector as complex numbers."""
    half = len(x) // 2
    halves = style is RopeStyle.HALVES
    pairs = x[:half] + 1j * x[half:] if halves else x[::2] + 1j * x[1::2]
    turned = pairs * np.exp(1j * angles)
    parts = (turned.real, turned.imag)
    return np.concatenate(parts) if halves else np.stack(parts, 1).reshape(-1)


def test_neighbour_pairs_turns_one_rope_style_into_the_other() -> None:
    config = config_from_hf(tiny.BY_NAME["llama-gqa64-tied"].config)
    rng = np.random.default_rng(1)
    x, angles = rng.normal(size=64), rng.normal(size=32)

    order = neighbour_pairs(config, 64)

    before = turn(x, angles, RopeStyle.HALVES)[order]
    np.testing.assert_allclose(turn(x[order], angles, RopeStyle.NEIGHBOURS), before)


def test_neighbour_pairs_keeps_heads_apart() -> None:
    config = config_from_hf(tiny.BY_NAME["llama-gqa64-tied"].config)

    order = neighbour_pairs(config, 192)

    assert sorted(order) == list(range(192))
    assert (order // 64 == np.arange(192) // 64).all()
    assert list(order[:4]) == [0, 32, 1, 33]


def test_add_one_is_exact_where_float32_is() -> None:
    values = np.array([-1.0, 0.0, 0.25], np.float32)

    assert TRANSFORMS["add_one"].values(values).tolist() == [0.0, 1.0, 1.25]
