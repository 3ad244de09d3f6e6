"""Reading checkpoints, against files that the ``safetensors`` package wrote."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from safetensors.numpy import load_file, save_file

from edgeinfer.errors import (
    ClosedError,
    CorruptFileError,
    NotFoundError,
    UnsupportedError,
)
from edgeinfer.formats.safetensors import open_checkpoint

RNG = np.random.default_rng(0)
TENSORS: dict[str, np.ndarray[Any, Any]] = {
    "f64": RNG.standard_normal((3, 2)),
    "f32": RNG.standard_normal((4, 5)).astype(np.float32),
    "f16": RNG.standard_normal((2, 3, 4)).astype(np.float16),
    "i64": RNG.integers(-9, 9, (3,)),
    "i32": RNG.integers(-9, 9, (3,), np.int32),
    "i16": RNG.integers(-9, 9, (3,), np.int16),
    "i8": RNG.integers(-9, 9, (3,), np.int8),
    "u64": RNG.integers(0, 9, (3,), np.uint64),
    "u32": RNG.integers(0, 9, (3,), np.uint32),
    "u16": RNG.integers(0, 9, (3,), np.uint16),
    "u8": RNG.integers(0, 9, (5,), np.uint8),
    "bool": np.array([True, False]),
    "none": np.zeros((0, 4), np.float32),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return tmp_path / "model.safetensors"


def save_raw(path: Path, dtype: str, shape: tuple[int, ...], data: bytes) -> None:
    """Writes one tensor "t" of a type that numpy lacks, which the package accepts."""
    header = {"t": {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    assert len(safetensors.deserialize(path.read_bytes())) == 1


def test_every_tensor_is_what_the_safetensors_package_reads(file: Path) -> None:
    theirs = load_file(file)

    with open_checkpoint(file) as checkpoint:
        assert checkpoint.tensors.keys() == theirs.keys()
        for name, expected in theirs.items():
            found = checkpoint.read(name)
            assert checkpoint.tensors[name].shape == expected.shape
            assert checkpoint.tensors[name].nbytes == expected.nbytes
            np.testing.assert_array_equal(found.astype(expected.dtype), expected)
            assert not found.flags.writeable


def test_reading_is_a_view_that_outlives_the_checkpoint(file: Path) -> None:
    with open_checkpoint(file.parent) as checkpoint:
        values = checkpoint.read("f32")
        assert np.shares_memory(values, checkpoint.read("f32"))

    np.testing.assert_array_equal(values, TENSORS["f32"])
    with pytest.raises(ClosedError):
        checkpoint.read("f32")


@pytest.mark.parametrize("name", ["f64", "f32", "f16", "none"])
def test_floats_of_any_width_become_float32(file: Path, name: str) -> None:
    values = open_checkpoint(file).read_float32(name)

    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, TENSORS[name].astype(np.float32))


def test_rows_are_read_alone(file: Path) -> None:
    checkpoint = open_checkpoint(file)

    rows = checkpoint.read_float32("f16", rows=slice(1, 2))

    np.testing.assert_array_equal(rows, TENSORS["f16"][1:2].astype(np.float32))


@given(arrays(np.float32, array_shapes(max_dims=3), elements=st.floats(width=32)))
def test_bfloat16_is_the_upper_half_of_float32(
    tmp_path_factory: pytest.TempPathFactory, values: np.ndarray[Any, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "bf16.safetensors"
    bits = np.ascontiguousarray(values).view(np.uint32) >> 16
    save_raw(path, "BF16", values.shape, bits.astype(np.uint16).tobytes())

    checkpoint = open_checkpoint(path)

    assert checkpoint.tensors["t"].dtype == "BF16"
    assert checkpoint.read("t").dtype == np.uint16
    found = checkpoint.read_float32("t")
    assert found.shape == values.shape
    np.testing.assert_array_equal(found.view(np.uint32), bits << 16)


@pytest.mark.parametrize(
    ("dtype", "elements", "nbytes"), [("F8_E4M3", 4, 4), ("F8_E5M2", 4, 4), ("F4", 4, 2)]
)
def test_a_type_numpy_lacks_is_listed_but_not_read(
    tmp_path: Path, dtype: str, elements: int, nbytes: int
) -> None:
    save_raw(tmp_path / "f8.safetensors", dtype, (elements,), bytes(nbytes))

    checkpoint = open_checkpoint(tmp_path / "f8.safetensors")

    assert checkpoint.tensors["t"].dtype == dtype
    with pytest.raises(UnsupportedError, match=dtype):
        checkpoint.read("t")


def test_a_scalar_has_no_dimensions(tmp_path: Path) -> None:
    save_raw(tmp_path / "s.safetensors", "F16", (), np.float16(3).tobytes())

    values = open_checkpoint(tmp_path / "s.safetensors").read_float32("t")

    assert values.shape == ()
    assert values == 3


def test_integers_are_no_floats(file: Path) -> None:
    with pytest.raises(UnsupportedError, match="I32"):
        open_checkpoint(file).read_float32("i32")


def test_a_missing_tensor_is_named(file: Path) -> None:
    with pytest.raises(CorruptFileError, match=r"lm_head\.weight"):
        open_checkpoint(file).read("lm_head.weight")


# Sharded checkpoints


def write_shards(folder: Path, weight_map: dict[str, Any] | None = None) -> Path:
    save_file({"a": TENSORS["f32"]}, folder / "model-00001-of-00002.safetensors")
    save_file({"b": TENSORS["f16"]}, folder / "model-00002-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = folder / "model.safetensors.index.json"
    index.write_text(
        json.dumps({"metadata": {"total_size": 128}, "weight_map": weight_map or names})
    )
    return index


def test_shards_are_read_as_one(tmp_path: Path) -> None:
    index = write_shards(tmp_path)

    for path in (tmp_path, index):
        with open_checkpoint(path) as checkpoint:
            assert list(checkpoint.tensors) == ["a", "b"]
            np.testing.assert_array_equal(checkpoint.read("b"), TENSORS["f16"])


def test_shards_may_be_links_into_the_cache_of_the_hub(tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    write_shards(snapshot)
    for number, path in enumerate(sorted(snapshot.iterdir())):
        path.rename(blobs / str(number))
        path.symlink_to(blobs / str(number))

    assert list(open_checkpoint(snapshot).tensors) == ["a", "b"]


@pytest.mark.parametrize(
    "name",
    [
        "../out.safetensors",
        "/etc/out.safetensors",
        "sub/out.safetensors",
        "..\\out.safetensors",
        "C:out.safetensors",
        "link.safetensors",
        "model.bin",
        "",
        None,
        7,
        ["model-00001-of-00002.safetensors"],
    ],
)
def test_a_weight_map_may_name_only_files_of_the_folder(tmp_path: Path, name: Any) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path, folder / "sub"):
        save_file({"b": TENSORS["f16"]}, place / "out.safetensors")
    (folder / "link.safetensors").symlink_to(tmp_path / "out.safetensors")
    write_shards(folder, {"a": "model-00001-of-00002.safetensors", "b": name})

    with pytest.raises(CorruptFileError):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("weight_map", "match"),
    [
        ({"a": "model-00001-of-00002.safetensors", "c": "model-00002-of-00002.safetensors"}, "'c'"),
        ({"a": "model-00002-of-00002.safetensors", "b": "model-00001-of-00002.safetensors"}, "'b'"),
    ],
)
def test_an_index_that_contradicts_its_shards_is_refused(
    tmp_path: Path, weight_map: dict[str, str], match: str
) -> None:
    write_shards(tmp_path, weight_map)

    with pytest.raises(CorruptFileError, match=match):
        open_checkpoint(tmp_path)


def test_a_tensor_the_index_forgets_is_taken(tmp_path: Path) -> None:
    write_shards(tmp_path, {"a": "model-00001-of-00002.safetensors"})
    save_file(
        {"a": TENSORS["f32"], "extra": TENSORS["f16"]},
        tmp_path / "model-00001-of-00002.safetensors",
    )

    assert open_checkpoint(tmp_path).tensors.keys() == {"a", "extra"}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', "\xff"]
)
def test_an_index_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text, encoding="latin-1")

    with pytest.raises(CorruptFileError, match=r"index\.json"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(("limit", "match"), [("MAX_SHARDS", "2 files"), ("MAX_HEADER", "bytes")])
def test_an_index_has_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, match: str
) -> None:
    write_shards(tmp_path)
    monkeypatch.setattr(f"edgeinfer.formats.safetensors.{limit}", 1)

    with pytest.raises(CorruptFileError, match=f"{match}, at most 1"):
        open_checkpoint(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()

    with pytest.raises(NotFoundError, match="model-00002"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_formats_that_run_code_are_refused_with_a_hint(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04.")

    for path in (tmp_path, tmp_path / name):
        with pytest.raises(UnsupportedError) as caught:
            open_checkpoint(path)
        assert "safetensors" in str(caught.value.hint)


def test_a_folder_without_weights_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"model\.safetensors"):
        open_checkpoint(tmp_path)
    with pytest.raises(NotFoundError):
        open_checkpoint(tmp_path / "none.safetensors")


def test_a_file_that_shrinks_is_an_error_and_not_a_signal(file: Path) -> None:
    """Reading such a page of a map would end the process by SIGBUS."""
    checkpoint = open_checkpoint(file)
    os.truncate(file, 1 << 10)

    with pytest.raises(CorruptFileError, match="ended while it was read"):
        for name in TENSORS:
            checkpoint.read_float32(name)


def test_a_file_that_is_replaced_meanwhile_is_another(file: Path) -> None:
    checkpoint = open_checkpoint(file)
    checkpoint.read_float32("f32")
    (file.parent / "new").write_bytes(file.read_bytes())
    os.replace(file.parent / "new", file)

    with pytest.raises(CorruptFileError, match="replaced"):
        checkpoint.read_float32("f32")
