"""Writing GGUF files: read back by us and by the ``gguf`` package."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.errors import EdgeInferError, UnsupportedError
from edgeinfer.formats import ggml_types
from edgeinfer.formats.gguf import GGUFWriter, ValueType, open_gguf, parse_header
from support.tiny_gguf import write_tiny_gguf


def copy(source: Path, target: Path) -> None:
    with open_gguf(source) as model, GGUFWriter(target) as writer:
        for key, value in model.metadata.items():
            writer.add_metadata(key, value, model.metadata_types[key])
        for info in model.tensors.values():
            writer.declare_tensor(info.name, info.type, info.shape)
        writer.begin()
        for name in model.tensors:
            writer.write(name, model.data(name))


def test_a_copy_is_identical_byte_for_byte(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "a.gguf")

    copy(tmp_path / "a.gguf", tmp_path / "b.gguf")

    assert (tmp_path / "b.gguf").read_bytes() == (tmp_path / "a.gguf").read_bytes()


def test_a_copy_of_a_real_vocabulary_is_identical(test_data: Path, tmp_path: Path) -> None:
    source = test_data / "vocab" / "ggml-vocab-llama-spm.gguf"

    copy(source, tmp_path / "copy.gguf")

    # The writer of that file ended a file without tensors with padding.
    assert source.read_bytes().rstrip(b"\0") == (tmp_path / "copy.gguf").read_bytes().rstrip(b"\0")


@pytest.mark.parametrize("type_", ggml_types.BY_NAME.values(), ids=lambda type_: type_.name)
def test_a_tensor_of_any_type_is_read_back(type_: ggml_types.GgmlType, tmp_path: Path) -> None:
    data = np.random.default_rng(type_.id).integers(0, 256, 6 * 3 * type_.nbytes, np.uint8)

    with GGUFWriter(tmp_path / "t.gguf") as writer:
        size = writer.declare_tensor("t", type_.name, (2, 3, 3 * type_.block))
        writer.begin()
        writer.write("t", data)

    assert size == data.nbytes
    with open_gguf(tmp_path / "t.gguf") as model:
        assert model.tensors["t"].type == type_.name
        assert model.tensors["t"].shape == (2, 3, 3 * type_.block)
        assert model.data("t").tobytes() == data.tobytes()
    theirs = gguf.GGUFReader(tmp_path / "t.gguf").tensors[0]
    assert theirs.tensor_type == type_.id
    assert theirs.data.tobytes() == data.tobytes()


def test_the_gguf_package_reads_every_kind_of_value(tmp_path: Path) -> None:
    values: dict[str, tuple[Any, ValueType | None, list[int]]] = {
        "a.u32": (1, None, [4]),
        "a.i32": (-1, None, [5]),
        "a.i64": (-(1 << 40), None, [11]),
        "a.u64": ((1 << 64) - 1, None, [10]),
        "a.f32": (0.5, None, [6]),
        "a.f64": (0.1, ValueType.F64, [12]),
        "a.u8": (7, ValueType.U8, [0]),
        "a.u16": (7, ValueType.U16, [2]),
        "a.bool": (False, None, [7]),
        "a.string": ("né🙂", None, [8]),
        "a.strings": (["a", "", "é"], None, [9, 8]),
        "a.ints": ([1, -2], None, [9, 5]),
        "a.floats": ([1, 2.5], None, [9, 6]),
        "a.booleans": ([True, False], None, [9, 7]),
        "a.u8s": ([1, 2], ValueType.U8, [9, 0]),
        "a.array": (np.array([1, 2], np.uint64), None, [9, 10]),
        "a.none": ([], ValueType.STRING, [9]),
        "a.cast": (np.array([1, 2], np.int64), ValueType.I32, [9, 5]),
        "a.numpy": (np.float32(0.25), None, [6]),
    }
    with GGUFWriter(tmp_path / "m.gguf") as writer:
        for key, (value, type_, _) in values.items():
            writer.add_metadata(key, value, type_)

    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    for key, (value, _, types) in values.items():
        assert [type_.value for type_ in reader.fields[key].types] == types, key
        expected = value.tolist() if isinstance(value, np.ndarray) else value
        assert reader.fields[key].contents() == expected, key


@pytest.mark.parametrize("alignment", [8, 64, 4096])
def test_tensors_are_aligned_as_asked(tmp_path: Path, alignment: int) -> None:
    with GGUFWriter(tmp_path / "a.gguf", alignment=alignment) as writer:
        for name in ("one", "two"):
            writer.declare_tensor(name, "i8", (3,))
        writer.begin()
        for name in ("one", "two"):
            writer.write(name, name.encode())

    model = open_gguf(tmp_path / "a.gguf")
    assert model.alignment == alignment
    assert all(info.offset % alignment == 0 for info in model.tensors.values())
    tensors = gguf.GGUFReader(tmp_path / "a.gguf").tensors
    assert [bytes(tensor.data) for tensor in tensors] == [b"one", b"two"]


def test_data_may_come_in_pieces(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(4, 3)

    with GGUFWriter(tmp_path / "p.gguf") as writer:
        writer.declare_tensor("t", "f32", (4, 3))
        writer.begin()
        for row in values[:2]:
            writer.write("t", row)
        writer.write("t", values[2:].tobytes())

    assert open_gguf(tmp_path / "p.gguf").data("t").tobytes() == values.tobytes()


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        ("too much", "'a': 5 bytes given, it has 4"),
        ("too little", "data of tensor 'b' is missing"),
        ("other order", "'b' given, 'a' expected"),
        ("unknown", "'c' given, 'a' expected"),
        ("extra", "'b' given, nothing more expected"),
    ],
)
def test_data_that_was_not_declared_leaves_no_file(tmp_path: Path, fault: str, match: str) -> None:
    def write() -> None:
        with GGUFWriter(tmp_path / "x.gguf") as writer:
            writer.declare_tensor("a", "i8", (4,))
            writer.declare_tensor("b", "i8", (4,))
            writer.begin()
            if fault in ("other order", "unknown"):
                writer.write("b" if fault == "other order" else "c", bytes(4))
            writer.write("a", bytes(5 if fault == "too much" else 4))
            writer.write("b", bytes(3 if fault == "too little" else 4))
            if fault == "extra":
                writer.write("b", bytes(1))

    with pytest.raises(EdgeInferError, match=match):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_model_larger_than_the_disk_is_refused_before_any_data(tmp_path: Path) -> None:
    with (
        pytest.raises(EdgeInferError, match="free on the disk"),
        GGUFWriter(tmp_path / "x.gguf") as writer,
    ):
        writer.declare_tensor("t", "f32", (1 << 50,))
        writer.begin()

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (256, ValueType.U8),
        (-1, ValueType.U32),
        (1 << 64, None),
        (1e300, ValueType.F32),
        (1.5, ValueType.I32),
        ("a", ValueType.U32),
        (1, ValueType.STRING),
        (1, ValueType.BOOL),
        ("\ud800", None),
        (["a", "\ud800"], None),
        (["a", 1], None),
        ([1 << 40], None),
        ([], None),
        ([1.5], ValueType.I32),
        ([300], ValueType.U8),
        (["1"], ValueType.I32),
        ([1e300], ValueType.F32),
        (np.array([-1]), ValueType.U64),
        (np.zeros(2, np.float16), None),
        ([[1], [2]], ValueType.I32),
        (np.zeros((2, 2), np.int32), None),
        (np.zeros(2, np.complex64), None),
        (None, None),
        ({}, None),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_key(
    tmp_path: Path, value: Any, type_: ValueType | None
) -> None:
    with (
        pytest.raises(UnsupportedError, match=r"general\.thing"),
        GGUFWriter(tmp_path / "x.gguf") as writer,
    ):
        writer.add_metadata("general.thing", value, type_)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "type_", "shape"),
    [
        ("", "f32", (1,)),
        ("n" * 64, "f32", (1,)),
        ("\ud800", "f32", (1,)),
        ("twice", "f32", (1,)),
        ("t", "q9_9", (32,)),
        ("t", "q4_0", (2, 33)),
        ("t", "f32", ()),
        ("t", "f32", (0,)),
        ("t", "f32", (1,) * 5),
    ],
)
def test_a_tensor_that_cannot_be_is_refused(
    tmp_path: Path, name: str, type_: str, shape: tuple[int, ...]
) -> None:
    with GGUFWriter(tmp_path / "x.gguf") as writer:
        writer.declare_tensor("twice", "f32", (1,))
        with pytest.raises(UnsupportedError):
            writer.declare_tensor(name, type_, shape)
        writer.abort()


scalars = st.one_of(
    st.text(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.floats(width=32, allow_nan=False),
)
arrays = st.one_of(
    st.lists(st.text(), min_size=1),
    st.lists(st.booleans(), min_size=1),
    st.lists(st.integers(-(1 << 31), (1 << 31) - 1), min_size=1),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1),
)


@given(st.dictionaries(st.text(min_size=1), scalars | arrays))
def test_metadata_survives_a_round_trip(
    tmp_path_factory: pytest.TempPathFactory, metadata: dict[str, Any]
) -> None:
    metadata.pop("general.alignment", None)
    path = tmp_path_factory.getbasetemp() / "round_trip.gguf"

    with GGUFWriter(path) as writer:
        for key, value in metadata.items():
            writer.add_metadata(key, value)
    header = parse_header(path.read_bytes())

    assert list(header.metadata) == list(metadata)
    for key, value in metadata.items():
        found: Any = header.metadata[key]
        found = found.tolist() if isinstance(found, np.ndarray) else found
        assert found == value
        assert not isinstance(value, float) or math.copysign(1, found) == math.copysign(1, value)
