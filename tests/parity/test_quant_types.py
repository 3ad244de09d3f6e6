"""Files of every quant type, encoded by llama.cpp, in our engine and in llama.cpp's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from edgeinfer import quant
from edgeinfer.formats.gguf import GGUFWriter, open_gguf
from edgeinfer.quant import QuantType
from support import tiny
from support.ours import our_engine, reference_logits
from support.peers import LlamaCpp, quantize_by_llama_cpp

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

Converted = Callable[..., Path]
SHAPE = {"hidden_size": 256, "intermediate_size": 512}  # whole blocks of 256


def written_in(quant_type: QuantType, source: Path, path: Path) -> Path:
    """The GGUF ``source`` with every matrix in one type."""
    values = {
        t.name: gguf.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(source).tensors
    }
    with open_gguf(source) as old, GGUFWriter(path) as writer:
        for key, value in old.metadata.items():
            writer.add_metadata(key, value)
        for name, tensor in values.items():
            kind = quant_type.name if tensor.ndim > 1 else "f32"
            writer.declare_tensor(name, kind, tensor.shape)
        writer.begin()
        for name, tensor in values.items():
            if tensor.ndim > 1:
                importance = np.square(tensor).mean(axis=0)
                writer.write(name, quantize_by_llama_cpp(quant_type, tensor, importance))
            else:
                writer.write(name, tensor)
    return path


@pytest.mark.parametrize("quant_type", [t for t in quant.all_types() if not t.is_float], ids=str)
def test_logits_are_those_of_the_decoded_weights(
    quant_type: QuantType, converted: Converted, tmp_path: Path
) -> None:
    wide = tiny.BY_NAME["llama-gqa64-tied"]
    wide = dataclasses.replace(wide, name="llama-wide", config={**wide.config, **SHAPE})
    path = written_in(quant_type, converted(wide), tmp_path / "model.gguf")
    expected = reference_logits(path, wide.tokens)
    size = expected.max() - expected.min()

    with our_engine(path) as engine:
        ours = np.abs(engine.logits(wide.tokens) - expected).max() / size
    theirs = np.abs(LlamaCpp(path).logits(wide.tokens) - expected).max() / size

    # Both round activations to 8 bits, llama.cpp in places up to 256 of them by one scale.
    assert theirs < 0.08
    assert ours < 0.04
    assert ours < 1.5 * theirs
