"""What transformers computed of the tiny models, recorded in tests/golden."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from support import tiny

GOLDEN = Path(__file__).parents[1] / "golden" / "parity"


@dataclass(frozen=True)
class Golden:
    """What transformers computed: logits of some columns, and the range of all."""

    tokens: list[int]
    columns: NDArray[np.int16]
    logits: NDArray[np.float32]
    range: float

    def distance(self, logits: NDArray[np.floating]) -> float:
        """The largest difference, as part of the range."""
        return float(np.abs(logits[:, self.columns] - self.logits).max()) / self.range


def golden(model: tiny.Tiny) -> Golden:
    with np.load(GOLDEN / f"{model.name}.npz") as file:
        return Golden(
            file["tokens"].tolist(), file["columns"], file["logits"], float(file["range"])
        )
