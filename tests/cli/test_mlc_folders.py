"""``edgeinfer show`` and ``plan`` of folders for MLC LLM."""

from __future__ import annotations

import json

import pytest

from edgeinfer_converters.mlc.convert import convert
from support import tiny


@pytest.fixture
def folder(tmp_path):
    """A folder that is made of a GGUF, with everything in it."""
    convert(tiny.write_gguf("qwen2-gqa64-tied", tmp_path), tmp_path / "mlc")
    return tmp_path / "mlc"


def test_a_folder_says_what_it_is(edgeinfer, folder):
    record = json.loads(edgeinfer("show", str(folder), "--json").stdout)
    shown = edgeinfer("show", str(folder))

    assert (record["format"], record["architecture"]) == ("mlc", "qwen2")
    assert (record["layers"], record["width"], record["context"]) == (3, 256, 1024)
    assert record["quant"] == "q4f16_1"
    assert "<|im_start|>" in record["chat_template"]
    assert "q4f16_1" in shown.stdout and "None" not in shown.stdout


def test_a_folder_is_planned_for_the_backend_that_reads_it(edgeinfer, folder):
    outcome = edgeinfer("plan", str(folder), "--device", "rpi5-8gb", "--json")

    record = json.loads(outcome.stdout)
    assert (record["backend"], record["quant"], record["fits"]) == ("mlc", "q4f16_1", True)
    caches = {(row["kv_type_k"], row["kv_type_v"]) for row in record["rows"]}
    assert caches == {("f16", "f16"), ("f32", "f32")}
    assert record["weights_bytes"] == (folder / "params_shard_0.bin").stat().st_size
    assert {"native", "llamacpp", "onnx"} <= {one["backend"] for one in record["rejected"]}


@pytest.mark.parametrize("file", ["params_shard_0.bin", "tensor-cache.json"])
@pytest.mark.parametrize("verb", ["show", "plan"])
def test_a_folder_that_is_not_whole(verb, file, edgeinfer, folder):
    (folder / "ndarray-cache.json").unlink()
    (folder / file).unlink()

    outcome = edgeinfer(verb, str(folder))

    assert outcome.exit_code == 6
    assert f"{file} is missing" in outcome.stderr
    assert "export the model again" in outcome.stderr
