"""Wrong safetensors files: each is read or refused, as the ``safetensors`` package would."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import safetensors
from safetensors.numpy import save_file

from edgeinfer.errors import CorruptFileError, EdgeInferError
from edgeinfer.formats.safetensors import open_checkpoint
from support.malformed_safetensors import iter_malformed_safetensors, joined
from support.sandbox import Report, try_all


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("valid") / "tiny.safetensors"
    tensors = {
        "model.norm.weight": np.ones(4, np.float32),
        "model.embed_tokens.weight": np.ones((5, 4), np.float16),
    }
    save_file(tensors, path, metadata={"format": "pt"})
    return path


@pytest.fixture(scope="module")
def report(valid: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return try_all(
        "support.loaders:read_safetensors",
        "support.malformed_safetensors:iter_malformed_safetensors",
        valid,
        tmp_path_factory.mktemp("malformed"),
    )


def test_every_file_is_read_or_refused_with_a_typed_error(report: Report) -> None:
    assert report.crashed is None
    assert report.leaked == []
    assert report.slow == []
    assert report.total > 900
    assert report.refused["CorruptFileError"] > 800


def test_what_the_safetensors_package_refuses_is_refused(valid: Path, tmp_path: Path) -> None:
    path = tmp_path / "case.safetensors"
    read, laxer = 0, []
    for label, octets in iter_malformed_safetensors(valid.read_bytes()):
        path.write_bytes(octets)
        try:
            open_checkpoint(path).close()
        except EdgeInferError:
            continue
        read += 1
        try:
            safetensors.deserialize(octets)
        except safetensors.SafetensorError:
            laxer.append(label)
        path.unlink()

    assert read > 0
    assert laxer == []


ROW = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}
REASONS: dict[str, tuple[bytes, str]] = {
    "overlap": (
        joined({"a": ROW, "b": {**ROW, "data_offsets": [2, 6]}}, bytes(6)),
        "tensor 'b', byte 130: its data overlaps",
    ),
    "gap": (
        joined({"a": ROW, "b": {**ROW, "data_offsets": [5, 9]}}, bytes(9)),
        "tensor 'b', byte 133: its data leaves a gap",
    ),
    "end": (joined({"a": ROW}, bytes(5)), "bytes after the end"),
    "cut": (joined({"a": ROW}, bytes(3)), "truncated"),
    "size": (joined({"a": {**ROW, "dtype": "F32"}}, bytes(4)), "takes 16 bytes"),
    # A product of so many sizes would take minutes to compute.
    "rank": (joined({"a": {**ROW, "shape": [1 << 62] * 300_000}}, bytes(4)), "shape"),
    "header": ((100_000_001).to_bytes(8, "little") + bytes(8), "not a safetensors file"),
    "twice": (joined(b'{"a":1,"a":1}', b""), "'a' is there twice"),
    "deep": (joined(b"[" * 100_000, b""), "nested too deep"),
    "NaN": (joined(b'{"a": NaN}', b""), "NaN is not a number"),
}


@pytest.mark.parametrize("name", REASONS)
def test_an_error_names_the_tensor_and_the_reason(tmp_path: Path, name: str) -> None:
    octets, reason = REASONS[name]
    (tmp_path / "x.safetensors").write_bytes(octets)

    with pytest.raises(CorruptFileError, match=re.escape(reason)):
        open_checkpoint(tmp_path / "x.safetensors")
