"""Several formats of one pass: the source is read once, and all outputs appear or none."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgeinfer.errors import (
    CorruptFileError,
    EdgeInferError,
    NotFoundError,
    UnsupportedError,
    UsageError,
)
from edgeinfer.formats.gguf import open_gguf
from edgeinfer.formats.gguf_writer import GGUFWriter
from edgeinfer.runtime.conversion import convert, convert_all
from edgeinfer_converters.tensors import CheckpointTensor, GgufTensor
from support import tiny

LLAMA = tiny.BY_NAME["llama-gqa64-tied"]
# Queries of two blocks of rows, of which the first ends within a head.
SHAPE = {"hidden_size": 384, "num_attention_heads": 40, "head_dim": 96, "vocab_size": 20_000}
LARGE = tiny.Tiny(name="llama-blocks", config={**LLAMA.config, **SHAPE})
FORMS = (("gguf", "q4_0"), ("mlc", "q4f16_1"), ("gguf", "q4_k_m"))
WITH_ONNX = (*FORMS, ("onnx", "int4"))


def targets(folder: Path, *forms: tuple[str, str | None]) -> list[tuple[str, str | None, Path]]:
    return [(format, quant, folder / f"out-{quant}.{format}") for format, quant in forms or FORMS]


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(LLAMA, tmp_path_factory.mktemp("source") / "model")


@pytest.mark.parametrize("forms", [FORMS, pytest.param(WITH_ONNX, marks=pytest.mark.peer)])
@pytest.mark.parametrize("kind", ["folder", "gguf"])
@pytest.mark.parametrize("name", ["llama-gqa64-tied", "phi3-mha96", "gemma2-gqa64"])
def test_outputs_are_those_of_single_conversions(
    name: str, kind: str, forms: tuple[tuple[str, str], ...], tmp_path: Path
) -> None:
    origin = tiny.write(tiny.BY_NAME[name], tmp_path / "model")
    if kind == "gguf":
        convert(origin, quant="q4_0", output=tmp_path / "model.gguf")
        origin = tmp_path / "model.gguf"
    (tmp_path / "together").mkdir()
    (tmp_path / "apart").mkdir()

    together = convert_all(origin, targets(tmp_path / "together", *forms))
    apart = [
        convert(origin, to, quant=quant, output=output)
        for to, quant, output in targets(tmp_path / "apart", *forms)
    ]

    assert contents(tmp_path / "together") == contents(tmp_path / "apart")
    for one, other in zip(together, apart, strict=True):
        assert (one.types, one.requantised, one.notes) == (
            other.types,
            other.requantised,
            other.notes,
        )


@pytest.mark.parametrize("forms", [FORMS, pytest.param(WITH_ONNX, marks=pytest.mark.peer)])
@pytest.mark.parametrize("kind", [CheckpointTensor, GgufTensor])
def test_each_row_is_read_and_decoded_once(
    kind: type, forms: tuple[tuple[str, str], ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = tiny.write(LARGE, tmp_path / "model")
    if kind is GgufTensor:
        convert(origin, quant="f16", output=tmp_path / "model.gguf")
        origin = tmp_path / "model.gguf"
    rows: Counter[tuple[str, int]] = Counter()
    read = kind.read  # type: ignore[attr-defined]

    def counted(tensor, first, last):
        rows.update((tensor.name, row) for row in range(first, last))
        return read(tensor, first, last)

    monkeypatch.setattr(kind, "read", counted)

    convert_all(origin, targets(tmp_path, *forms), exact=lambda path: None)

    assert len({name for name, _ in rows}) == 29
    assert sum(name == "token_embd.weight" for name, _ in rows) == 20_000
    assert set(rows.values()) == {1}


def test_what_one_format_refuses_is_said_before_weights_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = tiny.write(tiny.BY_NAME["smollm3-gqa64-tied"], tmp_path / "model")
    monkeypatch.setattr(CheckpointTensor, "read", None)

    with pytest.raises(UnsupportedError, match="not exported for MLC LLM"):
        convert_all(origin, targets(tmp_path))

    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def test_a_failure_of_one_leaves_all_as_they_were(source: Path, tmp_path: Path) -> None:
    convert_all(source, targets(tmp_path))
    before = contents(tmp_path)
    other = tiny.write(tiny.BY_NAME["llama-mha128-untied"], tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    tensors["model.norm.weight"][3] = 1e5  # only MLC stores it in float16
    save_file(tensors, other / "model.safetensors")

    with pytest.raises(UnsupportedError, match="too large for f16"):
        convert_all(other, targets(tmp_path))

    assert {k: v for k, v in contents(tmp_path).items() if not k.startswith("other")} == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_weights_that_are_no_numbers_leave_nothing(tmp_path: Path) -> None:
    origin = tiny.write(LLAMA, tmp_path / "model")
    tensors = load_file(origin / "model.safetensors")
    tensors["model.layers.2.mlp.down_proj.weight"][5, 7] = np.inf
    save_file(tensors, origin / "model.safetensors")

    with pytest.raises(CorruptFileError, match="ffn_down"):
        convert_all(origin, targets(tmp_path), exact=lambda path: None)

    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def test_a_disk_that_fails_at_the_end_leaves_all_as_they_were(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written is on disk, all of it, before the first output gets its name."""

    def fail(writer: GGUFWriter) -> None:
        raise EdgeInferError("no space left on device")

    monkeypatch.setattr(GGUFWriter, "sync", fail)

    with pytest.raises(EdgeInferError, match="no space left"):
        convert_all(source, targets(tmp_path, ("mlc", None), ("gguf", "q8_0")))

    assert list(tmp_path.iterdir()) == []


def test_the_source_as_it_is_is_lent_when_all_is_there(source: Path, tmp_path: Path) -> None:
    seen: dict[str, object] = {}

    def exact(path: Path) -> None:
        seen["outputs"] = {file.name for file in tmp_path.iterdir()}
        with open_gguf(path) as file:
            seen["types"] = {tensor.type for tensor in file.tensors.values()}
            name = "blk.1.ffn_down.weight"
            values = file.read(name, 0, file.tensors[name].nbytes).view(np.float32)
            seen["down"] = values.reshape(file.tensors[name].shape)

    convert_all(source, targets(tmp_path), exact=exact)

    assert seen["outputs"] == {output.name for *_, output in targets(tmp_path)}
    assert seen["types"] == {"f32"}
    expected = dict(LLAMA.tensors())["model.layers.1.mlp.down_proj.weight"]
    np.testing.assert_array_equal(seen["down"], expected)
    assert {file.name for file in tmp_path.iterdir()} == seen["outputs"]


@pytest.mark.peer
def test_a_form_of_a_common_name_is_blocks_of_32_in_each_format(
    source: Path, tmp_path: Path
) -> None:
    reports = convert_all(
        source, targets(tmp_path, ("gguf", "int4"), ("onnx", "int4"), ("mlc", "int4"))
    )

    assert [report.quant for report in reports] == ["q4_0", "int4", "q4f16_1"]
    assert [max(report.types, key=report.types.__getitem__) for report in reports] == [
        "q4_0",
        "int4",
        "q4f16_1",
    ]


def test_options_go_to_the_formats_that_know_them(source: Path, tmp_path: Path) -> None:
    wanted = targets(tmp_path, ("gguf", "q8_0"), ("mlc", "q4f16_1"))

    convert_all(source, wanted, mode="mlc")
    convert(source, "mlc", quant="q4f16_1", mode="mlc", output=tmp_path / "expected")

    assert contents(wanted[1][2]) == contents(tmp_path / "expected")
    with pytest.raises(UnsupportedError, match="'speed'"):
        convert_all(source, wanted, speed=11)


@pytest.mark.parametrize(
    ("forms", "error", "complaint"),
    [
        ([("gguf", "q8_0"), ("elf", None)], NotFoundError, "'elf'"),
        ([("gguf", "q8_0"), ("mlc", "int8")], UsageError, "8 bits"),
        ([("gguf", "q9_9"), ("mlc", None)], UsageError, "q9_9"),
        ([("gguf", "q8_0"), ("gguf", "q8_0")], UsageError, "the same name"),
    ],
)
def test_what_makes_no_sense(forms, error, complaint, source: Path, tmp_path: Path) -> None:
    with pytest.raises(error, match=complaint):
        convert_all(source, targets(tmp_path, *forms))

    assert list(tmp_path.iterdir()) == []
