"""Importance matrices: what is written can be read, also by the gguf package; old files too."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from edgeinfer.errors import CorruptFileError, NotFoundError
from edgeinfer.formats.gguf_writer import GGUFWriter
from edgeinfer.formats.imatrix import ColumnSums, ImportanceMatrix, read_imatrix, write_imatrix
from edgeinfer.quant.importance import fitted_importance

GOLDEN = Path(__file__).parents[1] / "golden" / "imatrix"

DENSE = ColumnSums(np.array([[1, 4, 9, 16]], np.float32), np.array([2], np.float32))
EXPERTS = ColumnSums(
    np.array([[2, 4], [0, 0], [3, 9]], np.float32), np.array([2, 0, 3], np.float32)
)
MATRIX = ImportanceMatrix(
    tensors={"blk.0.attn_q.weight": DENSE, "blk.0.ffn_up_exps.weight": EXPERTS},
    chunks=3,
    chunk_size=512,
    datasets=("a text",),
)


def test_a_matrix_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_imatrix(tmp_path / "i.gguf", MATRIX)

    found = read_imatrix(tmp_path / "i.gguf")

    assert (found.chunks, found.chunk_size, found.datasets) == (3, 512, ("a text",))
    assert set(found.tensors) == set(MATRIX.tensors)
    for name, sums in MATRIX.tensors.items():
        np.testing.assert_array_equal(found.tensors[name].squares, sums.squares)
        np.testing.assert_array_equal(found.tensors[name].counts, sums.counts)


def test_the_keys_and_tensors_are_those_of_llama_cpp(tmp_path: Path) -> None:
    write_imatrix(tmp_path / "i.gguf", MATRIX)

    reader = gguf.GGUFReader(tmp_path / "i.gguf")

    assert reader.fields["general.type"].contents() == "imatrix"
    assert reader.fields["imatrix.chunk_count"].contents() == 3
    assert reader.fields["imatrix.chunk_size"].contents() == 512
    assert reader.fields["imatrix.datasets"].contents() == ["a text"]
    shapes = {tensor.name: tensor.shape.tolist() for tensor in reader.tensors}  # columns first
    assert shapes["blk.0.ffn_up_exps.weight.in_sum2"] == [2, 3]
    assert shapes["blk.0.ffn_up_exps.weight.counts"] == [1, 3]


def test_all_columns_of_an_expert_that_no_token_has_met_count_alike() -> None:
    np.testing.assert_array_equal(EXPERTS.means(), [[1, 2], [1, 1], [1, 3]])


def dat(*entries: tuple[str, int, list[float]], tail: bytes = b"") -> bytes:
    """The older format, as llama-imatrix --output-format dat writes it."""
    octets = struct.pack("<i", len(entries))
    for name, calls, values in entries:
        octets += struct.pack("<i", len(name)) + name.encode() + struct.pack("<i", calls)
        octets += struct.pack(f"<i{len(values)}f", len(values), *values)
    return octets + tail


@pytest.mark.parametrize("tail", [b"", struct.pack("<ii", 7, 5) + b"a.txt"])
def test_the_older_format_is_read(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "imatrix.dat"
    path.write_bytes(dat(("blk.0.attn_q.weight", 2, [1, 4]), tail=tail))

    found = read_imatrix(path)

    np.testing.assert_array_equal(found.importance()["blk.0.attn_q.weight"], [[0.5, 2]])
    assert (found.chunks, found.datasets) == ((7, ("a.txt",)) if tail else (0, ()))


def test_both_formats_of_llama_imatrix_say_the_same_of_experts() -> None:
    """The files of ``tests/calibration/test_collect.py``; the older has no counts of experts."""
    new, old = (read_imatrix(GOLDEN / f"moe.{kind}") for kind in ("gguf", "dat"))
    shapes = {name: (*sums.squares.shape[:-1], 7, sums.squares.shape[-1]) for name, sums in
              new.tensors.items()}  # fmt: skip

    expected, found = (fitted_importance(m.importance(), shapes) for m in (new, old))

    assert (new.tensors["blk.0.ffn_up_exps.weight"].counts == 0).sum() == 6
    assert found.keys() == expected.keys() == new.tensors.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\1\0",
        struct.pack("<i", -3),
        struct.pack("<i", 1 << 30),
        dat(("a", 1, [1.0]))[:-2],
        struct.pack("<ii", 1, -5),
        dat(("a", 1, [float("nan")])),
        dat(("a", 1, [-1.0])),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, octets: bytes) -> None:
    path = tmp_path / "imatrix.dat"
    path.write_bytes(octets)

    with pytest.raises(CorruptFileError):
        read_imatrix(path)


def test_a_model_is_no_importance_matrix(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    with GGUFWriter(path) as writer:
        writer.add_metadata("general.architecture", "llama")
        writer.begin()

    with pytest.raises(CorruptFileError, match="no importance matrix"):
        read_imatrix(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"none\.gguf"):
        read_imatrix(tmp_path / "none.gguf")
