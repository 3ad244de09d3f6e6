"""ONNX Runtime as a backend: exported folders load, run and are refused as they should be."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import edgeinfer
from edgeinfer.backends.base import ModelFiles, Slice
from edgeinfer.backends.onnx import OnnxBackend, OnnxEngine
from edgeinfer.device.detect import detect
from edgeinfer.errors import CorruptFileError, EdgeInferError, UnsupportedError, UsageError
from edgeinfer.planner.plan import MemoryPlan
from support import tiny
from support.golden import golden
from support.plans import tiny_plan

pytestmark = pytest.mark.peer
MODEL = tiny.BY_NAME["gemma3-gqa64"]
PLAN = tiny_plan("onnx", batch=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("onnx"), "f32")


def export(place: Path, quant: str) -> Path:
    from edgeinfer_converters.onnx.convert import convert

    convert(tiny.write(MODEL, place / "hf"), place / "out", quant=quant)
    return place / "out"


def load(folder: Path, plan: MemoryPlan = PLAN) -> OnnxEngine:
    return OnnxBackend().load(ModelFiles(path=folder, format="onnx"), plan)


def test_logits_are_those_of_transformers_and_the_provider_is_told(folder):
    engine = load(folder)

    logits = engine.step([Slice(engine.open(), MODEL.tokens, tiny.TOKENS)])

    assert golden(MODEL).distance(logits) < 1e-4
    assert engine.provider == "CPUExecutionProvider"
    assert "CPUExecutionProvider" in OnnxBackend().probe(detect()).reason


def test_a_graph_of_half_floats_has_a_cache_of_half_floats(tmp_path):
    plan = replace(PLAN, kv_type_k="f16", kv_type_v="f16")
    engine = load(export(tmp_path, "f16"), plan)

    logits = engine.step([Slice(engine.open(), MODEL.tokens, tiny.TOKENS)])

    assert logits.dtype == np.float32
    assert golden(MODEL).distance(logits) < 0.01


def test_the_rest_of_the_program_runs_a_folder(folder):
    with edgeinfer.load(folder, context=96) as model:
        assert model.plan.backend == "onnx"
        assert model.plan.kv_types == "f32"
        assert model.plan.weights_bytes > (folder / "model.onnx.data").stat().st_size
        wanted = model.logits(MODEL.tokens)
        said = model.generate("the cat", max_tokens=8, temperature=0)

    assert golden(MODEL).distance(wanted) < 1e-4
    assert len(said.tokens) == 8 or said.finish_reason == "stop"


def test_the_same_weights_say_the_same_on_every_engine(tmp_path):
    """Weights of q8_0 keep their values; both engines round activations to 8 bits."""
    from edgeinfer_converters.gguf import convert as to_gguf
    from edgeinfer_converters.onnx.convert import convert

    hf = tiny.write(MODEL, tmp_path / "hf")
    to_gguf(hf, tmp_path / "model.gguf", quant="q8_0")
    convert(tmp_path / "model.gguf", tmp_path / "out", quant="int8")

    with (
        edgeinfer.load(tmp_path / "model.gguf", backend="native", kv_type_k="f32") as native,
        edgeinfer.load(tmp_path / "out") as ours,
    ):
        expected, got = native.logits(MODEL.tokens), ours.logits(MODEL.tokens)
    assert np.abs(got - expected).max() < 0.03 * np.ptp(expected)
    assert np.mean(got.argmax(axis=1) == expected.argmax(axis=1)) > 0.9


def test_matrices_kept_in_order_give_the_same_logits_from_less_memory(tmp_path, monkeypatch):
    from edgeinfer.backends import onnx_prepacked

    monkeypatch.setattr(onnx_prepacked, "home", lambda: tmp_path / "home")
    folder = export(tmp_path, "int4")
    plain = load(folder)
    expected = plain.step([Slice(plain.open(), MODEL.tokens, tiny.TOKENS)])

    monkeypatch.setenv("EDGEINFER_ONNX_PREPACKED", "1")
    for _ in range(2):  # made, and found again
        engine = load(folder)
        got = engine.step([Slice(engine.open(), MODEL.tokens, tiny.TOKENS)])
        np.testing.assert_array_equal(got, expected)
    (made,) = (tmp_path / "home" / "prepacked").iterdir()
    assert (made / "model.onnx.data").stat().st_size > 0

    os.utime(folder / "model.onnx.data", ns=(1, 1))  # another model
    load(folder)
    (anew,) = (tmp_path / "home" / "prepacked").iterdir()
    assert anew != made


def test_a_disk_without_room_for_matrices_in_order_is_told(folder, tmp_path, monkeypatch):
    from edgeinfer.backends import onnx_prepacked

    monkeypatch.setattr(onnx_prepacked, "home", lambda: tmp_path)
    monkeypatch.setenv("EDGEINFER_ONNX_PREPACKED", "1")
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10_000))

    with pytest.raises(EdgeInferError, match="10000 bytes free on the disk"):
        load(folder)

    assert not list((tmp_path / "prepacked").iterdir())


# ---- refusals --------------------------------------------------------------------------------


def test_a_cache_of_8_bits_is_measured_and_kept(tmp_path):
    from edgeinfer_converters.onnx.convert import convert

    convert(tiny.write(MODEL, tmp_path / "hf"), tmp_path / "out", quant="int8", cache="int8")

    with edgeinfer.load(tmp_path / "out", context=96) as model:
        assert model.plan.kv_types == "int8"
        config = model.engine.config
        assert model.plan.kv_bytes == 96 * config.layers * 2 * config.kv_heads * config.head_dim
        assert golden(MODEL).distance(model.logits(MODEL.tokens)) < 0.15
    assert not (tmp_path / "out" / "floats.onnx").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kv_type_k": "q8_0"}, "f32 cache"),
        ({"gpu_layers": -1}, "processor only"),
        ({"context": 2048}, "exported for 1024 tokens"),
    ],
)
def test_a_plan_it_cannot_keep_is_refused(change, message, folder):
    with pytest.raises(UnsupportedError, match=message):
        load(folder, replace(PLAN, **change))


def test_a_cache_that_the_graph_has_not_is_refused_before_loading(folder):
    with pytest.raises(UsageError, match="cache of f32, not of q8_0"):
        edgeinfer.load(folder, kv_type_k="q8_0")


def test_a_folder_is_not_for_backends_of_other_formats(folder):
    with pytest.raises(UnsupportedError, match="does not read 'onnx' models"):
        edgeinfer.load(folder, backend="native")


def test_the_graph_in_place_of_its_folder_is_told_as_such(folder):
    with pytest.raises(UnsupportedError, match=r"model\.onnx is a file of an exported model") as e:
        edgeinfer.load(folder / "model.onnx")

    assert str(folder) in str(e.value.hint)


def test_a_damaged_graph_is_an_error_with_its_name(tmp_path):
    folder = export(tmp_path, "int4")
    graph = folder / "model.onnx"
    octets = bytearray(graph.read_bytes())
    octets[: len(octets) // 2] = bytes(len(octets) // 2)
    graph.write_bytes(octets)

    with pytest.raises(CorruptFileError, match=r"ONNX Runtime [0-9.]+ does not load it"):
        load(folder)

    (folder / "model.onnx.data").unlink()
    with pytest.raises(CorruptFileError, match=r"model\.onnx\.data is missing"):
        edgeinfer.load(folder)


def another_graph(graph):
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    node = helper.make_node("Add", ["x", "x"], ["y"])
    graph.CopyFrom(helper.make_graph([node], "g", [x], [y]))


def without_a_choice_of_rows(graph):
    (option,) = (value for value in graph.input if value.name == "num_logits")
    graph.input.remove(option)


def with_one_more_input(graph):
    graph.input.append(graph.input[0])
    graph.input[-1].name = "position_ids"


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (another_graph, "it has no 'input_ids'"),
        (without_a_choice_of_rows, "it has no 'num_logits'"),
        (with_one_more_input, "it wants 'position_ids' as well"),
        ("kv_heads", r"'past_key_values\.0\.key' is a tensor\(float\) of"),
        ("vocab_size", r"'logits' .*, not a tensor\(float\) of \(any, any, 1\)"),
    ],
)
def test_a_graph_other_than_the_record_tells_is_refused(harm, message, folder, tmp_path):
    import onnx

    wrong = shutil.copytree(folder, tmp_path / "wrong")
    record = json.loads((wrong / "edgeinfer.json").read_text())
    if isinstance(harm, str):
        record["config"][harm] = 1
    else:
        model = onnx.load(wrong / "model.onnx", load_external_data=False)
        harm(model.graph)
        record["files"]["model.onnx"] = (wrong / "model.onnx").write_bytes(
            model.SerializeToString()
        )
    (wrong / "edgeinfer.json").write_text(json.dumps(record))

    with pytest.raises(CorruptFileError, match=message):
        load(wrong)


def test_without_the_library_it_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    with pytest.raises(UnsupportedError) as caught:
        load(folder)

    assert "edgeinfer[onnx]" in str(caught.value.hint)
    assert not OnnxBackend().probe(detect()).usable


def test_an_old_library_is_refused(folder, monkeypatch):
    monkeypatch.setattr("onnxruntime.__version__", "1.20.1")

    with pytest.raises(UnsupportedError, match=r"1\.20\.1 is too old"):
        load(folder)
