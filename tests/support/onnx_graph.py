"""An exported folder in plain onnxruntime, its cache passed on by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


class Run:
    """Reads tokens without any of our own backend."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # it warns of the rows of logits, which vary
        self.session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def logits(self, tokens: list[int], step: int | None = None) -> np.ndarray:
        """The logits after each token, read in pieces of ``step``."""
        cache = self._empty()
        names = [output.name for output in self.session.get_outputs()]
        rows, step = [], step or len(tokens)
        for at in range(0, len(tokens), step):
            piece = tokens[at : at + step]
            fed = {
                "input_ids": np.array([piece]),
                "attention_mask": np.ones((1, at + len(piece)), np.int64),
                "num_logits": np.array([len(piece)]),
                **cache,
            }
            made = dict(zip(names, self.session.run(names, fed), strict=True))
            cache = {name: made[name.replace("past_key_values", "present")] for name in cache}
            rows.append(made["logits"][0])
        return np.concatenate(rows).astype(np.float32)

    def _empty(self) -> dict[str, Any]:
        kinds = {
            "tensor(float)": np.float32,
            "tensor(float16)": np.float16,
            "tensor(int8)": np.int8,
        }
        return {
            value.name: np.zeros((1, value.shape[1], 0, value.shape[3]), kinds[value.type])
            for value in self.session.get_inputs()
            if value.name.startswith("past_key_values")
        }


def with_exact_products(folder: Path) -> None:
    """Makes the products of an exported graph exact: activations are no longer rounded."""
    import onnx

    path = folder / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 0
    onnx.save(model, path)
