"""Checkpoints of gpt-oss with experts as MXFP4, and what their blocks mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from support import tiny

LEVELS = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
LEVELS = np.concatenate([LEVELS, -LEVELS])  # E2M1, by its four bits
MATRICES = ("gate_up_proj", "down_proj")


def pack(
    model: tiny.Tiny, folder: Path, powers: tuple[int, int] = (-10, -5)
) -> dict[str, NDArray[np.float32]]:
    """Puts random MXFP4 in place of a checkpoint's experts; returns (experts, rows, columns)."""
    from safetensors.numpy import load_file, save_file

    rng = np.random.default_rng(7)
    tensors, meant = load_file(folder / "model.safetensors"), {}
    for name in [name for name in tensors if name.endswith(MATRICES)]:
        experts, columns, rows = tensors.pop(name).shape
        blocks = rng.integers(0, 256, (experts, rows, columns // 32, 16), np.uint8)
        scales = rng.integers(
            127 + powers[0], 128 + powers[1], (experts, rows, columns // 32), np.uint8
        )
        tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        # A byte holds neighbours, the first in its lower half.
        values = np.stack([LEVELS[blocks & 15], LEVELS[blocks >> 4]], axis=-1)
        units = 2.0 ** (scales.astype(np.float32) - 127)
        values = values.reshape(*scales.shape, 32) * units[..., None]
        meant[name] = values.reshape(experts, rows, columns).astype(np.float32)
    save_file(tensors, folder / "model.safetensors")
    quantised = {"quantization_config": {"quant_method": "mxfp4"}}
    tiny.write_config(folder, {**model.config, **quantised})
    return meant
