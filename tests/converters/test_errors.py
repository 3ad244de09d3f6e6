"""Checkpoints that cannot be converted: a typed error that names the place, and no output."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgeinfer.errors import EdgeInferError, UnsupportedError
from edgeinfer.formats.gguf import open_gguf
from edgeinfer_converters.gguf import convert
from support import tiny

MODEL = tiny.BY_NAME["llama-gqa64-tied"]
Tensors = dict[str, np.ndarray]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write(MODEL, tmp_path / "model")


def change_config(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps({**MODEL.config, **changes}))

    return change


def change_tensors(edit: Callable[[Tensors], object]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        edit(tensors)
        save_file(tensors, folder / "model.safetensors")

    return change


def overwrite(file: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_text(text) and None


QUERY = "model.layers.1.self_attn.q_proj.weight"
BROKEN: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "missing tensor": (change_tensors(lambda t: t.pop(QUERY)), 6, QUERY),
    "unknown tensor": (
        change_tensors(lambda t: t.update({"model.layers.0.moe.gate": np.zeros(2, np.float32)})),
        5,
        "model.layers.0.moe.gate",
    ),
    "wrong shape": (change_tensors(lambda t: t.update({QUERY: t[QUERY][:-1]})), 6, QUERY),
    "not a number": (change_tensors(lambda t: t[QUERY].fill(np.nan)), 6, "blk.1.attn_q.weight"),
    "integers": (
        change_tensors(lambda t: t.update({QUERY: t[QUERY].astype(np.int32)})),
        5,
        QUERY,
    ),
    "unsupported class": (change_config(architectures=["FalconForCausalLM"]), 5, "Falcon"),
    "already quantised": (change_config(quantization_config={"bits": 4}), 5, "quantised"),
    "bias without tensors": (change_config(attention_bias=True), 6, "q_proj.bias"),
    "config not JSON": (overwrite("config.json", "{"), 6, "config.json"),
    "config not an object": (overwrite("config.json", "[1]"), 6, "config.json"),
    "no config": (lambda folder: (folder / "config.json").unlink(), 3, "config.json"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), 3, "safetensors"),
    "template not a string": (
        overwrite("tokenizer_config.json", '{"chat_template": 7}'),
        6,
        "chat_template",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_checkpoint_is_named_and_nothing_is_written(
    name: str, folder: Path, tmp_path: Path
) -> None:
    spoil, exit_code, words = BROKEN[name]
    spoil(folder)
    output = tmp_path / "out"
    output.mkdir()

    with pytest.raises(EdgeInferError) as caught:
        convert(folder, output / "out.gguf", quant="q8_0")

    assert caught.value.exit_code == exit_code
    assert words in caught.value.message
    assert list(output.iterdir()) == []


def test_an_unknown_recipe_is_a_usage_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgeInferError, match="q4_z") as caught:
        convert(folder, tmp_path / "out.gguf", quant="q4_z")

    assert caught.value.exit_code == 2


def test_a_source_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(EdgeInferError, match="nothing") as caught:
        convert(tmp_path / "nothing", tmp_path / "out.gguf")

    assert caught.value.exit_code == 3


@pytest.mark.parametrize("named", ["the folder", "the graph"])
def test_an_onnx_folder_is_said_to_be_one(named: str, folder: Path, tmp_path: Path) -> None:
    onnx = tmp_path / "onnx"
    onnx.mkdir()
    (onnx / "model.onnx").write_bytes(b"\x08\n")
    (onnx / "config.json").write_bytes((folder / "config.json").read_bytes())  # as exports have
    source = onnx if named == "the folder" else onnx / "model.onnx"

    with pytest.raises(UnsupportedError, match="is an exported ONNX model") as caught:
        convert(source, tmp_path / "out.gguf")

    assert "exported from" in str(caught.value.hint)
    (folder / "model.onnx").write_bytes(b"\x08\n")  # beside the weights it is no matter
    convert(folder, tmp_path / "out.gguf", quant="q8_0")


def test_a_weight_too_large_for_f16_is_an_error(folder: Path, tmp_path: Path) -> None:
    change_tensors(lambda t: t[QUERY].fill(1e6))(folder)

    with pytest.raises(EdgeInferError, match="too large for f16"):
        convert(folder, tmp_path / "out.gguf", quant="f16")

    convert(folder, tmp_path / "out.gguf", quant="bf16")


@pytest.mark.parametrize(
    "extra",
    ["lm_head.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"],
)
def test_what_transformers_leaves_beside_the_weights_is_no_error(
    extra: str, folder: Path, tmp_path: Path
) -> None:
    change_tensors(lambda t: t.update({extra: np.zeros(2, np.float32)}))(folder)

    convert(folder, tmp_path / "out.gguf", quant="q8_0")


def test_gpt2_in_the_spelling_of_its_makers_gives_the_same_file(tmp_path: Path) -> None:
    usual = tiny.write(tiny.BY_NAME["gpt2-mha64"], tmp_path / "usual")
    old = tiny.write(tiny.BY_NAME["gpt2-mha64"], tmp_path / "old")
    masks = {f"h.{i}.attn.bias": np.zeros(2, np.float32) for i in range(3)}
    weights = load_file(old / "model.safetensors")
    renamed = {name.removeprefix("transformer."): tensor for name, tensor in weights.items()}
    save_file(renamed | masks, old / "model.safetensors")

    convert(usual, tmp_path / "usual.gguf", quant="q8_0")
    convert(old, tmp_path / "old.gguf", quant="q8_0")

    with open_gguf(tmp_path / "usual.gguf") as one, open_gguf(tmp_path / "old.gguf") as other:
        assert one.tensors.keys() == other.tensors.keys()
        for name in one.tensors:
            np.testing.assert_array_equal(one.data(name), other.data(name))
