"""Experts of gpt-oss: as floats or as MXFP4, the GGUF has what the checkpoint means."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from edgeinfer.arch import config_from_hf
from edgeinfer.errors import CorruptFileError, UnsupportedError
from edgeinfer.planner.outline import Outline
from edgeinfer_converters.gguf import convert
from support import tiny
from support.mxfp4 import MATRICES, pack

MODEL = tiny.BY_NAME["gptoss-gqa64-sinks"]


def experts_of(path: Path) -> dict[str, gguf.ReaderTensor]:
    return {t.name: t for t in gguf.GGUFReader(path).tensors if "_exps.weight" in t.name}


def as_meant(found: dict[str, NDArray[np.float32]], i: int, matrix: str) -> NDArray[np.float32]:
    """The rows of gate and up come by turns in a checkpoint."""
    if matrix == "down_proj":
        return found[f"blk.{i}.ffn_down_exps.weight"]
    gate, up = (found[f"blk.{i}.ffn_{name}_exps.weight"] for name in ("gate", "up"))
    return np.stack([gate, up], axis=2).reshape(gate.shape[0], -1, gate.shape[2])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write(MODEL, tmp_path / "model")


@pytest.mark.parametrize("quant", ["mxfp4_moe", "bf16", "f32"])
def test_blocks_keep_every_weight(quant: str, folder: Path, tmp_path: Path) -> None:
    meant = pack(MODEL, folder)

    report = convert(folder, tmp_path / "out.gguf", quant=quant)

    found = experts_of(tmp_path / "out.gguf")
    kind = quant.removesuffix("_moe").upper()
    assert {t.tensor_type.name for t in found.values()} == {kind}
    values = {n: gguf.quants.dequantize(t.data, t.tensor_type) for n, t in found.items()}
    for name, weights in meant.items():
        i, matrix = int(name.split(".")[2]), name.rpartition(".")[2]
        np.testing.assert_array_equal(as_meant(values, i, matrix), weights)
    assert (report.requantised == {}) == (quant == "mxfp4_moe")


def test_a_plan_counts_blocks_as_they_are(folder: Path) -> None:
    pack(MODEL, folder)
    shapes = {n: t.shape for n, t in load_file(folder / "model.safetensors").items()}

    outline = Outline.of_checkpoint(MODEL.config, shapes)

    types = {t.type for n, t in outline.tensors.items() if "_exps.weight" in n}
    assert types == {"mxfp4"}


def test_floats_of_many_blocks_of_rows_are_read_in_order(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Blocks that end within one expert and go over the next.
    monkeypatch.setattr("edgeinfer_converters.quantize.BLOCK_VALUES", 100 * 192)
    meant = load_file(folder / "model.safetensors")

    convert(folder, tmp_path / "out.gguf", quant="f32")

    found = {n: t.data for n, t in experts_of(tmp_path / "out.gguf").items()}
    for i in range(config_from_hf(MODEL.config).layers):
        for matrix in MATRICES:
            wanted = meant[f"model.layers.{i}.mlp.experts.{matrix}"].swapaxes(1, 2)
            np.testing.assert_array_equal(as_meant(found, i, matrix), wanted)


def test_blocks_of_another_shape_or_type_are_refused(folder: Path, tmp_path: Path) -> None:
    pack(MODEL, folder)
    file = folder / "model.safetensors"
    tensors, name = load_file(file), "model.layers.1.mlp.experts.down_proj_scales"
    good = tensors[name]

    save_file({**tensors, name: good[:, :-1].copy()}, file)
    with pytest.raises(CorruptFileError, match="down_proj_scales"):
        convert(folder, tmp_path / "out.gguf", quant="mxfp4_moe")
    save_file({**tensors, name: good.astype(np.float32)}, file)
    with pytest.raises(UnsupportedError, match="not bytes"):
        convert(folder, tmp_path / "out.gguf", quant="mxfp4_moe")
    del tensors[name]
    save_file(tensors, file)
    with pytest.raises(CorruptFileError, match="missing"):
        convert(folder, tmp_path / "out.gguf", quant="mxfp4_moe")


def test_other_ways_of_quantising_are_refused(folder: Path, tmp_path: Path) -> None:
    tiny.write_config(folder, {**MODEL.config, "quantization_config": {"quant_method": "awq"}})

    with pytest.raises(UnsupportedError, match="quantised already"):
        convert(folder, tmp_path / "out.gguf")


@pytest.mark.peer
def test_blocks_mean_what_transformers_reads(folder: Path, tmp_path: Path) -> None:
    import torch
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    meant = pack(MODEL, folder)
    stored = load_file(folder / "model.safetensors")

    for name, weights in meant.items():
        parts = (torch.from_numpy(stored[f"{name}_{end}"]) for end in ("blocks", "scales"))
        theirs = convert_moe_packed_tensors(*parts, dtype=torch.float32)
        np.testing.assert_array_equal(theirs.numpy(), weights.swapaxes(1, 2))
