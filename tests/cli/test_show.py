"""``edgeinfer show``."""

from __future__ import annotations

import json

import gguf
import numpy as np
import pytest


def test_json_agrees_with_the_gguf_package(edgeinfer, smollm2):
    reader = gguf.GGUFReader(smollm2)

    record = json.loads(edgeinfer("show", str(smollm2), "--json").stdout)

    def key(name):
        return reader.fields[name].contents()

    assert record["architecture"] == key("general.architecture") == "llama"
    assert record["parameters"] == sum(int(tensor.n_elements) for tensor in reader.tensors)
    assert record["context"] == key("llama.context_length")
    assert record["vocabulary"] == len(key("tokenizer.ggml.tokens"))
    assert record["chat_template"] == key("tokenizer.chat_template")
    assert record["licence"] == "apache-2.0"
    assert record["bytes"] == smollm2.stat().st_size
    assert list(record["weight_types"]) == ["q4_1", "q8_0"]


def test_people_read_the_same(edgeinfer, smollm2):
    outcome = edgeinfer("show", str(smollm2))

    assert "134,515,008" in outcome.stdout
    assert "q4_1 (q4_1 79%, q8_0 21%)" in outcome.stdout
    assert "with --template" in outcome.stdout
    assert outcome.exit_code == 0


def test_what_takes_more_memory_than_the_file_says_so(edgeinfer, smollm2, tmp_path):
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    blocks = np.zeros((64, 66), dtype=np.uint8)  # 64 rows of 256 weights
    writer.add_tensor("output.weight", blocks, raw_dtype=gguf.GGMLQuantizationType.IQ2_XXS)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    record = json.loads(edgeinfer("show", str(path), "--json").stdout)

    assert record["packed_bytes"] == 64 * 256 * 3.1875 / 8  # 2.0625 bits in the file
    assert "in memory     6.4 KiB" in edgeinfer("show", str(path)).stdout
    assert "in memory" not in edgeinfer("show", str(smollm2)).stdout


def test_the_template_alone(edgeinfer, smollm2):
    template = json.loads(edgeinfer("show", str(smollm2), "--json").stdout)["chat_template"]

    assert edgeinfer("show", str(smollm2), "--template").stdout == template + "\n"


@pytest.fixture
def bare(tmp_path):
    """A GGUF with nothing but an architecture."""
    path = tmp_path / "bare.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_what_a_file_does_not_say_is_left_out(edgeinfer, bare):
    outcome = edgeinfer("show", str(bare))

    assert outcome.exit_code == 0
    assert "None" not in outcome.stdout
    assert "tokenizer" not in outcome.stdout


def test_a_file_without_a_template(edgeinfer, bare):
    assert edgeinfer("show", str(bare), "--template").exit_code == 3


def test_a_checkpoint_is_to_be_converted_first(edgeinfer, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")

    outcome = edgeinfer("show", str(tmp_path))

    assert outcome.exit_code == 5
    assert "convert" in outcome.stderr
