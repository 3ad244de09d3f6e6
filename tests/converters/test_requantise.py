"""From GGUF to GGUF: weights change their type, everything else stays."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from edgeinfer.errors import CorruptFileError, UnsupportedError, UsageError
from edgeinfer.formats.gguf import open_gguf
from edgeinfer.formats.gguf_writer import GGUFWriter
from edgeinfer.formats.metadata import ValueType
from edgeinfer_converters.gguf import convert
from support import tiny

CHANGED = {"general.file_type", "general.quantization_version"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF with keys of every type that a vendor might have put there."""
    folder = tmp_path_factory.mktemp("source")
    convert(
        tiny.write(tiny.BY_NAME["phi3-gqa96-shortrope"], folder / "model"),
        folder / "plain.gguf",
        quant="q8_0",
    )
    path = folder / "source.gguf"
    with open_gguf(folder / "plain.gguf") as plain, GGUFWriter(path) as writer:
        for key, value in plain.metadata.items():
            writer.add_metadata(key, value, plain.metadata.types[key])
        writer.add_metadata("vendor.small", 3, ValueType.U8)
        writer.add_metadata("vendor.long", 3, ValueType.I64)
        writer.add_metadata("vendor.precise", 0.1, ValueType.F64)
        writer.add_metadata("vendor.list", np.array([1, 2], np.int16))
        writer.add_metadata("vendor.words", ["a", "b"])
        for name, tensor in plain.tensors.items():
            writer.declare_tensor(name, tensor.type, tensor.shape)
        writer.begin()
        for name in plain.tensors:
            writer.write(name, plain.data(name))
    return path


def rewritten(source: Path, target: Path, name: str, data: np.ndarray | None) -> Path:
    """Copies a file with one tensor taken away, or replaced by float32 data."""
    with open_gguf(source) as model, GGUFWriter(target) as writer:
        for key, value in model.metadata.items():
            writer.add_metadata(key, value, model.metadata.types[key])
        kept = {n: t for n, t in model.tensors.items() if n != name}
        for n, t in kept.items():
            writer.declare_tensor(n, t.type, t.shape)
        if data is not None:
            writer.declare_tensor(name, "f32", data.shape)
        writer.begin()
        for n in kept:
            writer.write(n, model.data(n))
        if data is not None:
            writer.write(name, data)
    return target


def test_the_same_type_copies_every_byte(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "out.gguf", quant="q8_0")

    with open_gguf(source) as before, open_gguf(tmp_path / "out.gguf") as after:
        assert list(before.tensors) == list(after.tensors)
        for name in before.tensors:
            np.testing.assert_array_equal(before.data(name), after.data(name))


def test_metadata_is_kept_with_its_types(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "out.gguf", quant="q4_0")

    before, after = gguf.GGUFReader(source), gguf.GGUFReader(tmp_path / "out.gguf")

    assert list(before.fields) == list(after.fields)
    for key, field in before.fields.items():
        assert field.types == after.fields[key].types
        if key not in CHANGED and not key.startswith("GGUF."):
            assert field.contents() == after.fields[key].contents()
    assert after.fields["general.file_type"].contents() == gguf.LlamaFileType.MOSTLY_Q4_0


def test_weights_are_decoded_and_encoded_again(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "out.gguf", quant="f32")

    for before, after in zip(
        gguf.GGUFReader(source).tensors, gguf.GGUFReader(tmp_path / "out.gguf").tensors, strict=True
    ):
        assert after.tensor_type is gguf.GGMLQuantizationType.F32
        wanted = gguf.quants.dequantize(before.data, before.tensor_type)
        np.testing.assert_array_equal(after.data, wanted)


def test_a_missing_tensor_is_named_and_nothing_is_written(source: Path, tmp_path: Path) -> None:
    broken = rewritten(source, tmp_path / "broken.gguf", "blk.1.ffn_down.weight", None)

    with pytest.raises(CorruptFileError, match=r"blk\.1\.ffn_down\.weight"):
        convert(broken, tmp_path / "out.gguf", quant="f16")

    assert [p.name for p in tmp_path.iterdir()] == ["broken.gguf"]


def test_an_unknown_tensor_is_named(source: Path, tmp_path: Path) -> None:
    data = np.zeros(4, np.float32)
    broken = rewritten(source, tmp_path / "broken.gguf", "blk.1.attn_sinks.weight", data)

    with pytest.raises(UnsupportedError, match=r"blk\.1\.attn_sinks\.weight"):
        convert(broken, tmp_path / "out.gguf", quant="f16")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_no_number_is_an_error(value: float, source: Path, tmp_path: Path) -> None:
    data = np.ones(192, np.float32)
    data[77] = value
    broken = rewritten(source, tmp_path / "broken.gguf", "output_norm.weight", data)

    with pytest.raises(CorruptFileError, match=r"output_norm\.weight.*not a finite number"):
        convert(broken, tmp_path / "out.gguf", quant="q4_0")

    assert [p.name for p in tmp_path.iterdir()] == ["broken.gguf"]


def test_the_source_is_not_overwritten(source: Path, tmp_path: Path) -> None:
    before = source.read_bytes()
    link = tmp_path / "link.gguf"
    link.symlink_to(source)

    for target in (source, link):
        with pytest.raises(UsageError, match="source"):
            convert(source, target, quant="f16")

    assert source.read_bytes() == before
