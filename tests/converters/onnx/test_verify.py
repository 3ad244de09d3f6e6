"""A folder is compared with its source before it gets its name."""

from __future__ import annotations

import numpy as np
import pytest

from edgeinfer.errors import CheckFailedError
from edgeinfer.runtime.conversion import native_logits
from edgeinfer_converters.gguf import convert as to_gguf
from edgeinfer_converters.onnx import weights
from edgeinfer_converters.onnx.convert import convert
from edgeinfer_converters.onnx.forms import Encoded
from support import tiny

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny.write(tiny.BY_NAME["llama-gqa64-tied"], tmp_path_factory.mktemp("hf") / "model")


@pytest.mark.parametrize(
    ("quant", "cache", "error"),
    [("f32", None, 0.0), ("f16", None, 0.001), ("int8", "f16", 0.01), ("int4", "int8", 0.1)],
)
def test_a_good_folder_passes(quant, cache, error, checkpoint, tmp_path):
    report = convert(checkpoint, tmp_path / "out", quant=quant, cache=cache, verify=native_logits)

    found = report.verification
    assert found is not None and found.tensors > 10 and found.kl_mean < found.kl_limit
    assert found.worst[0].error <= error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_the_offsets_of_blocks_are_read_back(checkpoint, tmp_path):
    to_gguf(checkpoint, tmp_path / "model.gguf", quant="q4_1")

    report = convert(tmp_path / "model.gguf", tmp_path / "out", quant="int4", verify=native_logits)

    assert report.verification is not None
    errors = [t.error for t in report.verification.worst if t.type == "int4+offsets"]
    assert errors and max(errors) < 0.01


@pytest.mark.parametrize("harm", ["codes", "scales"])
def test_a_wrong_folder_gets_no_name(harm, checkpoint, tmp_path, monkeypatch):
    encoded = weights.encoded

    def harmed(*arguments, **options):
        made = encoded(*arguments, **options)
        if harm == "codes":
            swapped = made.codes.reshape(-1, 2)[:, ::-1].reshape(made.codes.shape)
            return Encoded(swapped, made.scales)
        return Encoded(made.codes, np.roll(made.scales * 2, 1, axis=0))

    convert(checkpoint, tmp_path / "out", quant="int8")
    before = (tmp_path / "out" / "model.onnx.data").read_bytes()
    monkeypatch.setattr(weights, "encoded", harmed)

    with pytest.raises(CheckFailedError, match="off its source"):
        convert(checkpoint, tmp_path / "out", quant="int4", verify=native_logits)

    assert (tmp_path / "out" / "model.onnx.data").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
