"""Tensors: names, shapes and contents are those of MLC LLM's own parameter maps.

``golden/mlc_parameters.json`` holds what MLC LLM (commit 79d603f0) makes of a configuration:
its "model_config", which tensors of a checkpoint each of its parameters joins, and the
parameters of q4f16_1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeinfer.formats.mlc.families import FAMILIES
from edgeinfer_converters.gguf import convert as to_gguf
from edgeinfer_converters.mlc.convert import convert
from support import mlc_folder, tiny

GOLDEN: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "golden" / "mlc_parameters.json").read_text()
)
CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
}
# MLC LLM stores the weight of these norms with one added, which checkpoints leave out.
ADDS_ONE = ("gemma2", "gemma3_text")
# Settings that are ours to choose, or that MLC LLM lets depend on its command line.
CHOSEN = {"max_batch_size", "prefill_chunk_size", "attention_sink_size", "kwargs"}


@dataclass(frozen=True, slots=True)
class Variant:
    name: str
    model: tiny.Tiny
    folder: Path

    @property
    def golden(self) -> dict[str, Any]:
        return GOLDEN[self.name]

    @property
    def family(self) -> str:
        return self.name.removesuffix("_tied")


@pytest.fixture(scope="module", params=GOLDEN)
def variant(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Variant]:
    name = request.param
    family = name.removesuffix("_tied")
    config = {**GOLDEN[name]["config"], "architectures": [CLASSES[family]]}
    if family in ADDS_ONE:
        config["tie_word_embeddings"] = True  # MLC LLM's has no other output matrix
    model = tiny.Tiny(name=f"mlc-{name}", config=config)
    folder = tmp_path_factory.mktemp(name)
    tiny.write(model, folder / "hf")
    yield Variant(name, model, folder)


def test_every_family_is_tested() -> None:
    assert {family.model_type for family in FAMILIES.values()} == set(CLASSES)


def test_names_shapes_and_types(variant: Variant, tmp_path: Path) -> None:
    convert(variant.folder / "hf", tmp_path / "out", quant="q4f16_1", mode="mlc")

    records = mlc_folder.read(tmp_path / "out").records
    found = {name: (record["shape"], record["dtype"]) for name, record in records.items()}
    rows = variant.model.config["vocab_size"]
    assert found == {
        name: ([rows if size == "vocab_size" else size for size in shape], dtype)
        for name, shape, dtype in variant.golden["records"]
    }


def test_contents(variant: Variant, tmp_path: Path) -> None:
    convert(variant.folder / "hf", tmp_path / "out", quant="q0f32")

    arrays = mlc_folder.read(tmp_path / "out").arrays
    checkpoint = dict(variant.model.tensors())
    assert arrays.keys() == variant.golden["sources"].keys()
    for name, sources in variant.golden["sources"].items():
        expected = np.concatenate([checkpoint[source] for source in sources])
        if variant.family in ADDS_ONE and "norm" in name:
            expected = expected + np.float32(1)
        np.testing.assert_array_equal(arrays[name], expected, err_msg=name)


@pytest.mark.parametrize("quant", ["q0f32", "q4f16_1", "q3f16_0"])
def test_a_gguf_of_the_model_becomes_the_same_files(
    variant: Variant, quant: str, tmp_path: Path
) -> None:
    """Rows that a GGUF has in another order are put back."""
    to_gguf(variant.folder / "hf", tmp_path / "model.gguf", quant="f32")

    convert(variant.folder / "hf", tmp_path / "of_hf", quant=quant)
    convert(tmp_path / "model.gguf", tmp_path / "of_gguf", quant=quant)

    expected = mlc_folder.read(tmp_path / "of_hf").arrays
    found = mlc_folder.read(tmp_path / "of_gguf").arrays
    if variant.family == "mistral":  # its GGUF says llama, and has the same tensors
        assert expected.keys() == found.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_settings(variant: Variant, tmp_path: Path) -> None:
    convert(variant.folder / "hf", tmp_path / "out", quant="q4f16_1")

    config = mlc_folder.read(tmp_path / "out").config
    assert config["model_type"] == variant.family
    assert config["quantization"] == "q4f16_1"
    ours, theirs = config["model_config"], variant.golden["model_config"]
    if variant.family == "gemma3_text":
        ours, theirs = ours["text_config"], theirs["text_config"]
        theirs = {**theirs, "context_window_size": 256}  # MLC LLM's is longer than the model's
    kept = theirs.keys() - CHOSEN
    assert {key: ours[key] for key in kept} == {key: theirs[key] for key in kept}
