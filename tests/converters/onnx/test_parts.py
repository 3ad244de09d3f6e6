"""A graph cut into parts gives what the whole graph gives, with few rows of matrices at a time."""

from __future__ import annotations

import mmap

import numpy as np
import pytest

from edgeinfer_converters.onnx.data_file import NAME, DataFile
from edgeinfer_converters.onnx.graph import MICROSOFT, Graph
from edgeinfer_converters.onnx.parts import Parts

pytest.importorskip("onnx_ir")
onnxruntime = pytest.importorskip("onnxruntime")

WIDTH, INNER = 64, 160
PRODUCT = {"domain": MICROSOFT, "transB": 1}


@pytest.fixture(params=["f32", "f16"])
def drawn(request, tmp_path):
    """A gated feed-forward block and a whole number that is carried across it."""
    data, graph = DataFile(), Graph(request.param)
    shapes = {"gate": (INNER, WIDTH), "up": (INNER, WIDTH), "down": (WIDTH, INNER)}
    stored = {name: data.declare(name, request.param, shape) for name, shape in shapes.items()}
    rng = np.random.Generator(np.random.PCG64(3))
    with (tmp_path / NAME).open("w+b") as file:
        for place in stored.values():
            data.write(file, place, 0, 0.1 * rng.standard_normal(place.shape).astype(np.float32))
    states = graph.input("hidden_states", "float", ["batch", "tokens", WIDTH])
    count = graph.cast(graph.node("Shape", states), "int32")
    gate, up = (
        graph.node("FusedMatMul", states, graph.weight(stored[name]), **PRODUCT)
        for name in ("gate", "up")
    )
    inner = graph.node("Mul", graph.node("Sigmoid", gate), up)
    down = graph.node("FusedMatMul", inner, graph.weight(stored["down"]), **PRODUCT)
    scaled = graph.node("Mul", down, graph.cast(graph.node("ReduceMax", count), "float"))
    graph.output(graph.node("Add", states, scaled), "layer_states", "float", ["b", "t", WIDTH])
    return tmp_path, graph.serialized("")


def made(folder, model):
    options = onnxruntime.SessionOptions()
    key = "session.model_external_initializers_file_folder_path"
    options.add_session_config_entry(key, str(folder))
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("most", [1 << 30, 16_000, 5_000])
def test_parts_compute_what_the_whole_does(drawn, most):
    folder, model = drawn
    whole = made(folder, model)
    kind = np.float16 if "16" in whole.get_inputs()[0].type else np.float32
    states = np.random.default_rng(4).standard_normal((1, 7, WIDTH)).astype(kind)

    with (folder / NAME).open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        parts = Parts(model, most, lambda part: made(folder, part), data)
        for _ in range(2):  # pages that were forgotten are read again
            (found,) = parts({"hidden_states": states}).values()

    (wanted,) = whole.run(None, {"hidden_states": states})
    assert found.dtype == kind
    error = np.abs(found.astype(np.float64) - wanted).max() / np.abs(wanted).max()
    assert error < (1e-6 if kind == np.float32 else 2e-3)


def test_a_part_has_no_more_rows_than_it_may(drawn):
    folder, model = drawn
    with (folder / NAME).open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        parts = Parts(model, 5_000, lambda part: made(folder, part), data)

    sizes = [sum(block.nbytes for block in part.blocks.values()) for part in parts._parts]
    assert len(sizes) > 3 and max(sizes) <= 5_000 + 4 * INNER  # and a row's rounding
