"""What every verb says of a folder that was exported for ONNX Runtime."""

from __future__ import annotations

import json

import pytest

from edgeinfer_converters.gguf import convert as to_gguf
from support import tiny

pytestmark = pytest.mark.peer
MODEL = tiny.BY_NAME["llama-gqa64-tied"]


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    place = tmp_path_factory.mktemp("source")
    to_gguf(tiny.write(MODEL, place / "hf"), place / "model.gguf", quant="q4_0")
    return place / "model.gguf"


@pytest.fixture(scope="module")
def folder(gguf):
    from edgeinfer_converters.onnx.convert import convert

    convert(gguf, gguf.parent / "out", quant="int4", cache="f16", context=256)
    return gguf.parent / "out"


def test_show(edgeinfer, folder):
    record = json.loads(edgeinfer("show", str(folder), "--json").stdout)

    assert record["architecture"] == "llama"
    assert (record["quant"], record["cache_type"], record["context"]) == ("int4", "f16", 256)
    assert record["weight_types"].keys() == {"int4", "int8/16"}
    assert record["layers"] == MODEL.config["num_hidden_layers"]
    said = edgeinfer("show", str(folder)).stdout
    assert "cache         f16" in said and "int8/16" in said


def test_plan(edgeinfer, folder):
    record = json.loads(edgeinfer("plan", str(folder), "--json").stdout)

    assert record["backend"] == "onnx"
    assert {row["kv_type_k"] for row in record["rows"]} == {"f16"}
    assert {row["context"] for row in record["rows"]} == {256}
    assert {one["backend"]: one["reason"] for one in record["rejected"]}["native"] == (
        "does not read onnx folders"
    )
    assert "pick: onnx, int4, 256 tokens, f16 cache" in edgeinfer("plan", str(folder)).stdout
    short = edgeinfer("plan", str(folder), "--memory", "30MiB")
    assert short.exit_code == 4
    assert "-ctk" not in short.stderr and "--to gguf" not in short.stderr


def test_bench_beside_the_file_it_is_from(edgeinfer, folder, gguf):
    arguments = ("--backend", "all", "-p", "8", "-n", "2", "-r", "1", "--json")
    outcome = edgeinfer("bench", str(gguf), str(folder), *arguments)

    records = json.loads(outcome.stdout)
    assert [record["backend"] for record in records][-1] == "onnx"
    assert {record["backend"] for record in records} >= {"native", "llamacpp", "onnx"}
    assert all(record["divergence"] < 0.1 for record in records)
    assert edgeinfer("bench", str(gguf), str(folder)).exit_code == 2


def test_convert_options_for_it_alone(edgeinfer, gguf, tmp_path):
    for option in (("--cache-type", "int8"), ("-c", "64")):
        outcome = edgeinfer("convert", str(gguf), *option, "-o", str(tmp_path / "x.gguf"))
        assert outcome.exit_code == 2 and "--to onnx" in outcome.stderr
    done = edgeinfer(
        "convert", str(gguf), "--to", "onnx", "-q", "int4", "-c", "64", "-o", str(tmp_path / "out")
    )
    assert done.exit_code == 0
    assert json.loads((tmp_path / "out" / "edgeinfer.json").read_text())["context"] == 64
