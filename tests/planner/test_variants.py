"""Forms of a model: what a conversion is predicted to write is what it writes."""

from __future__ import annotations

import pytest

from edgeinfer import store
from edgeinfer.errors import CorruptFileError, UnsupportedError, UsageError
from edgeinfer.planner.outline import Outline
from edgeinfer.planner.variants import WORTHWHILE, stored_variants
from edgeinfer_converters.gguf import convert
from support import tiny

WIDE = tiny.Tiny(
    name="llama-wide",
    config={
        **tiny.BY_NAME["llama-gqa64-tied"].config,
        "hidden_size": 256,
        "intermediate_size": 512,
    },
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tiny.write(WIDE, tmp_path_factory.mktemp("checkpoint") / "Wide-1")
    return store.locate(str(folder))


@pytest.mark.parametrize("quant", WORTHWHILE)
def test_a_conversion_writes_what_was_predicted(checkpoint, tmp_path, quant):
    (predicted,) = stored_variants(checkpoint, quant)

    convert(checkpoint.path, tmp_path / "out.gguf", quant=quant)

    (written,) = stored_variants(store.locate(str(tmp_path / "out.gguf")))
    types = {name: tensor.type for name, tensor in written.outline.tensors.items()}
    assert {n: t.type for n, t in predicted.outline.tensors.items()} == types
    assert predicted.outline.file_bytes == written.outline.file_bytes
    assert predicted.outline.config.layers == written.outline.config.layers


@pytest.mark.parametrize("model", tiny.ALL, ids=str)
def test_every_family_s_checkpoint_is_outlined(model, tmp_path):
    found = stored_variants(store.locate(str(tiny.write(model, tmp_path / "checkpoint"))))

    assert [one.outline.quant for one in found] == list(WORTHWHILE)


def test_a_missing_tensor_is_named():
    shapes = {name: values.shape for name, values in WIDE.tensors()}
    shapes.pop("model.layers.1.mlp.up_proj.weight")

    with pytest.raises(CorruptFileError, match=r"layers\.1\.mlp\.up_proj"):
        Outline.of_checkpoint(WIDE.config, shapes)


def test_a_quant_that_nobody_knows(checkpoint):
    with pytest.raises(UsageError, match="q9_z"):
        stored_variants(checkpoint, "q9_z")


def test_a_settings_file_that_is_no_json(tmp_path):
    folder = tiny.write(WIDE, tmp_path / "checkpoint")
    (folder / "config.json").write_text("{")

    with pytest.raises(CorruptFileError, match=r"config\.json"):
        stored_variants(store.locate(str(folder)))


def test_a_format_that_no_conversion_reads(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"x")

    with pytest.raises(UnsupportedError, match="onnx"):
        stored_variants(store.locate(str(tmp_path / "model.onnx")))
