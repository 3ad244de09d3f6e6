"""The folder: whole or not at all, tokenizer and all, the same bytes every time."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

import edgeinfer
from edgeinfer.cli._program import run
from edgeinfer.errors import CorruptFileError, NotFoundError, UnsupportedError, UsageError
from edgeinfer_converters.gguf import convert as to_gguf
from edgeinfer_converters.mlc.convert import convert
from support import mlc_folder, tiny

MODEL = tiny.BY_NAME["llama-gqa64-tied"]
NORM = "model.layers.1.input_layernorm.weight"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny.write(MODEL, tmp_path / "model")


def contents(folder: Path) -> dict[str, str]:
    files = sorted(folder.iterdir())
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_all_files_are_there(source: Path, tmp_path: Path) -> None:
    report = edgeinfer.convert(source, to="mlc", quant="q4f16_1", output=tmp_path / "out")

    assert set(contents(tmp_path / "out")) == {
        "mlc-chat-config.json",
        "ndarray-cache.json",
        "params_shard_0.bin",
        "tensor-cache.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    names = contents(tmp_path / "out")
    assert names["ndarray-cache.json"] == names["tensor-cache.json"]
    assert report.types == {"q4f16_1": 13, "float16": 7}
    assert 4.5 < report.bits_per_weight < 4.6
    assert report.bytes_out == sum(file.stat().st_size for file in (tmp_path / "out").iterdir())


def test_the_index_counts_what_is_loaded(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "out", quant="q0f32", mode="mlc")

    folder = mlc_folder.read(tmp_path / "out")
    weights = sum(values.size for _, values in MODEL.tensors())
    assert folder.index["metadata"] == {
        "ParamSize": len(folder.records),
        "ParamBytes": 4.0 * weights,
        "BitsPerParam": 32.0,
    }
    # float32 takes 16 bits in the file, as MLC LLM's converter writes it.
    assert sum(shard["nbytes"] for shard in folder.index["records"]) == 2 * weights


@pytest.mark.parametrize("quant", ["q3f16_0", "q4f32_1"])
def test_the_same_bytes_every_time(quant: str, source: Path, tmp_path: Path) -> None:
    shards = tiny.write(MODEL, tmp_path / "shards", shards=3)

    for name, origin, threads in (("a", source, 1), ("b", source, 3), ("c", shards, 2)):
        convert(origin, tmp_path / name, quant=quant, threads=threads)

    assert contents(tmp_path / "a") == contents(tmp_path / "b") == contents(tmp_path / "c")


@pytest.mark.parametrize("mode", ["mse", "mlc"])
@pytest.mark.parametrize("quant", mlc_folder.FORMATS)
def test_weights_are_near_the_source(quant: str, mode: str, source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "out", quant=quant, mode=mode)

    folder = mlc_folder.read(tmp_path / "out")
    checkpoint = dict(MODEL.tensors())
    for name in ("model.embed_tokens.weight", "model.layers.2.mlp.down_proj.weight"):
        expected = checkpoint[name]
        values = folder.values(name)[:, : expected.shape[1]]
        error = np.linalg.norm(values - expected) / np.linalg.norm(expected)
        assert error < (0.30 if quant.startswith("q3") else 0.12), name
    if quant == "q4f16_2":
        assert "model.embed_tokens.weight" in folder.arrays


def test_mlc_mode_writes_the_bits_of_mlc(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "out", quant="q4f16_1", mode="mlc")

    arrays = mlc_folder.read(tmp_path / "out").arrays
    checkpoint = dict(MODEL.tensors())
    name = "model.layers.0.self_attn.{}_proj.weight"
    joined = np.concatenate([checkpoint[name.format(part)] for part in "qkv"])[:40]
    words, scales = mlc_folder.mlc_matrix(joined, "q4f16_1")
    stem = "model.layers.0.self_attn.qkv_proj."
    np.testing.assert_array_equal(arrays[stem + "q_weight"][:40], words)
    np.testing.assert_array_equal(arrays[stem + "q_scale"][:40], scales)


@pytest.mark.parametrize("quant", ["q4f16_1", "q4f16_0", "q4f32_1"])
def test_a_gguf_of_q4_0_keeps_its_values(quant: str, source: Path, tmp_path: Path) -> None:
    to_gguf(source, tmp_path / "model.gguf", quant="q4_0")

    report = convert(tmp_path / "model.gguf", tmp_path / "out", quant=quant)

    # The values of the GGUF, in Hugging Face order.
    convert(tmp_path / "model.gguf", tmp_path / "values", quant="q0f32")
    expected = mlc_folder.read(tmp_path / "values").arrays
    folder = mlc_folder.read(tmp_path / "out")
    matrices = [name for name, values in expected.items() if values.ndim == 2]
    kept = [name for name in matrices if "embed" not in name]  # the recipe's is another type
    assert len(kept) == 12
    for name in kept:
        np.testing.assert_array_equal(folder.values(name), expected[name], err_msg=name)
    assert not any(change.startswith("q4_0") for change in report.requantised)


def test_other_quantised_types_are_reported(source: Path, tmp_path: Path) -> None:
    to_gguf(source, tmp_path / "model.gguf", quant="q8_0")

    report = convert(tmp_path / "model.gguf", tmp_path / "out", quant="q4f16_1")

    assert report.requantised == {"q8_0 -> q4f16_1": 13}


def test_a_gguf_brings_its_tokenizer(source: Path, tmp_path: Path) -> None:
    to_gguf(source, tmp_path / "model.gguf", quant="f16")

    convert(tmp_path / "model.gguf", tmp_path / "out", quant="q4f16_1")

    ours = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    theirs = Tokenizer.from_file(str(source / "tokenizer.json"))
    for text in ("the cat sat on the mat", " déjà  vu\n", "<|im_start|>the<|im_end|>"):
        ids = theirs.encode(text, add_special_tokens=False).ids
        assert ours.encode(text, add_special_tokens=False).ids == ids
        assert ours.decode(ids) == theirs.decode(ids)
    config = mlc_folder.read(tmp_path / "out").config
    assert config["tokenizer_files"] == ["tokenizer.json", "tokenizer_config.json"]
    assert config["tokenizer_info"]["token_postproc_method"] == "byte_level"


def test_a_checkpoint_without_a_tokenizer(source: Path, tmp_path: Path) -> None:
    (source / "tokenizer.json").unlink()

    with pytest.raises(NotFoundError, match=r"tokenizer\.json"):
        convert(source, tmp_path / "out", quant="q4f16_1")


def test_a_token_that_is_added_twice(source: Path, tmp_path: Path) -> None:
    path = source / "tokenizer.json"
    stated = json.loads(path.read_text())
    stated["added_tokens"].append({**stated["added_tokens"][1], "id": 305})
    path.write_text(json.dumps(stated))

    with pytest.raises(CorruptFileError, match="im_start"):
        convert(source, tmp_path / "out", quant="q4f16_1")


def test_a_failure_leaves_the_old_folder(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "out", quant="q4f16_1")
    before = contents(tmp_path / "out")
    tensors = load_file(source / "model.safetensors")
    tensors[NORM][3] = np.nan
    save_file(tensors, source / "model.safetensors")

    with pytest.raises(CorruptFileError, match="input_layernorm"):
        convert(source, tmp_path / "out", quant="q4f32_1")

    assert contents(tmp_path / "out") == before
    assert {path.name for path in tmp_path.iterdir()} == {"model", "out"}


def test_a_folder_is_replaced_by_a_new_one(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "out", quant="q0f32")
    convert(source, tmp_path / "out", quant="q4f16_1")

    assert mlc_folder.read(tmp_path / "out").config["quantization"] == "q4f16_1"
    assert {path.name for path in tmp_path.iterdir()} == {"model", "out"}


def test_other_folders_and_the_source_are_not_overwritten(source: Path, tmp_path: Path) -> None:
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.tex").write_text("...")

    with pytest.raises(UsageError, match="papers"):
        convert(source, tmp_path / "papers", quant="q4f16_1")
    with pytest.raises(UsageError, match="source"):
        convert(source, source, quant="q4f16_1")

    assert (tmp_path / "papers" / "thesis.tex").exists()
    assert (source / "model.safetensors").exists()


def test_weights_too_large_for_float16(source: Path, tmp_path: Path) -> None:
    tensors = load_file(source / "model.safetensors")
    tensors[NORM][3] = 1e5
    save_file(tensors, source / "model.safetensors")

    with pytest.raises(UnsupportedError, match="100000"):
        convert(source, tmp_path / "out", quant="q4f16_1")
    convert(source, tmp_path / "out", quant="q4f32_1")


def test_the_command_line(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--to", "mlc", "-q", "q4f16_1", "--mlc-mode", "mlc", "--json"]

    code = run(["convert", str(source), *options, "-o", str(tmp_path / "out")])

    assert code == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["format"], report["quant"]) == ("mlc", "q4f16_1")
    convert(source, tmp_path / "expected", quant="q4f16_1", mode="mlc")
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")


def test_the_command_line_tells_what_mlc_leaves_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gemma = tiny.write(tiny.BY_NAME["gemma2-gqa64"], tmp_path / "gemma")

    code = run(["convert", str(gemma), "--to", "mlc", "-q", "q0f16", "-o", str(tmp_path / "out")])

    assert code == 0
    assert "soft cap" in capsys.readouterr().out


def test_a_mode_is_for_mlc_only(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(["convert", str(source), "--mlc-mode", "mlc", "-o", str(tmp_path / "x.gguf")])

    assert code == 2
    assert "--mlc-mode" in capsys.readouterr().err
