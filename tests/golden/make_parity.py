"""Records what transformers computes for the tiny models: ``python tests/golden/make_parity.py``.

For each model one file in ``parity/``: the logits of 64 tokens in float32, of every 8th
entry of the vocabulary, and the range of all. Needs torch and transformers; the tests that
compare with the files do not.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from support import tiny
from support.peers import Transformers

FOLDER = Path(__file__).parent / "parity"
EVERY = 8


def record(model: tiny.Tiny) -> None:
    """Writes the golden file of one model."""
    with tempfile.TemporaryDirectory() as folder:
        tiny.write(model, Path(folder), tokenizer=False)
        logits = Transformers(Path(folder), model.config["architectures"][0]).logits(model.tokens)
    np.savez_compressed(
        FOLDER / f"{model.name}.npz",
        tokens=np.array(model.tokens, np.int16),
        columns=np.arange(0, logits.shape[1], EVERY, dtype=np.int16),
        logits=logits[:, ::EVERY],
        range=np.float32(logits.max() - logits.min()),
    )


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for model in tiny.MODELS:
        record(model)
        print(model)
