"""Wrong safetensors files: each is read or refused, as the ``safetensors`` package would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors
from safetensors.numpy import save_file

from edgeinfer.errors import EdgeInferError
from edgeinfer.formats.safetensors import open_checkpoint
from support.malformed_safetensors import iter_malformed_safetensors
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
