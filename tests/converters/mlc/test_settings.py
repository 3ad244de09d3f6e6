"""mlc-chat-config.json: what MLC LLM reads of a model, and what it cannot be told."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeinfer.arch import config_from_hf
from edgeinfer.errors import UnsupportedError
from edgeinfer_converters.gguf import convert as to_gguf
from edgeinfer_converters.mlc.convert import convert
from edgeinfer_converters.pipeline import ConvertReport
from support import mlc_folder, tiny

LLAMA = tiny.BY_NAME["llama-gqa64-tied"]
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def written(
    name: str, folder: Path, *, by_gguf: bool = False, **config: Any
) -> tuple[dict[str, Any], ConvertReport]:
    model = tiny.BY_NAME[name]
    model = replace(model, config={**model.config, **config})
    source = tiny.write(model, folder / "hf")
    if by_gguf:
        to_gguf(source, folder / "model.gguf", quant="f32")
        source = folder / "model.gguf"
    report = convert(source, folder / "out", quant="q4f16_1")
    return mlc_folder.read(folder / "out").config, report


def mlc_frequencies(settings: dict[str, Any]) -> np.ndarray:
    """The rotary frequencies as TVM computes them from a Llama's settings."""
    lanes = settings["head_dim"]
    plain = settings["position_embedding_base"] ** -(np.arange(0, lanes, 2) / lanes)
    scaling = settings["rope_scaling"]
    if scaling is None:
        return plain
    assert scaling["rope_type"] == "llama3"
    inverse = 1.0 / (scaling["high_freq_factor"] - scaling["low_freq_factor"])
    alpha = scaling["original_max_position_embeddings"] / (2 * math.pi) * inverse
    smooth = np.clip(alpha * plain - scaling["low_freq_factor"] * inverse, 0, 1)
    return (1 - smooth) * plain / scaling["factor"] + smooth * plain


@pytest.mark.parametrize("by_gguf", [False, True], ids=["folder", "gguf"])
@pytest.mark.parametrize(
    "rope",
    [
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},  # transformers 5
        {"rope_theta": 500000.0},
        {"rope_parameters": LLAMA3},
        {"rope_theta": 500000.0, "rope_scaling": {**LLAMA3, "factor": 8.0}},
        {"rope_parameters": {**LLAMA3, "low_freq_factor": 2.0, "rope_theta": 1e6}},
        {"rope_parameters": {**LLAMA3, "original_max_position_embeddings": 64}},
    ],
    ids=["version 5", "version 4", "llama 3.2", "llama 3.1", "other factors", "short"],
)
def test_llama_turns_as_the_model_does(rope: dict[str, Any], by_gguf: bool, tmp_path: Path) -> None:
    config, _ = written("llama-gqa64-tied", tmp_path, by_gguf=by_gguf, **rope)

    expected = config_from_hf({**LLAMA.config, **rope}).rope_tables[0].inverse_frequencies
    np.testing.assert_allclose(mlc_frequencies(config["model_config"]), expected, rtol=1e-5)


def test_llama_3_keeps_its_published_numbers(tmp_path: Path) -> None:
    config, _ = written("llama-gqa64-tied", tmp_path, by_gguf=True, rope_parameters=LLAMA3)

    expected = {key: value for key, value in LLAMA3.items() if key != "rope_theta"}
    assert config["model_config"]["rope_scaling"] == expected
    assert config["model_config"]["position_embedding_base"] == 500000.0


@pytest.mark.parametrize("name", ["qwen2-gqa64-tied", "qwen3-gqa128-tied"])
def test_qwen_has_its_base_under_its_old_name(name: str, tmp_path: Path) -> None:
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 7e5}, "rope_theta": None}

    config, _ = written(name, tmp_path, **rope)

    assert config["model_config"]["rope_theta"] == 7e5


@pytest.mark.parametrize(
    "name",
    [
        "llama-gqa64-linear",
        "llama-gqa64-yarn",
        "llama-gqa64-longrope",
        "llama-mha64-biases",
        "qwen2-gqa128-yarn",
        "qwen3-mha64-yarn",
        "gemma3-mha96-linear",
        "olmo2-gqa128-yarn",
        "smollm3-gqa64-tied",
        "granite-gqa64-tied",
        "mixtral-gqa64",
        "qwen3moe-gqa128",
        "olmoe-mha64",
    ],
)
def test_what_mlc_would_compute_otherwise_is_refused(name: str, tmp_path: Path) -> None:
    folder = tiny.write(tiny.BY_NAME[name], tmp_path / "hf")

    with pytest.raises(UnsupportedError, match=r"MLC LLM|experts"):
        convert(folder, tmp_path / "out", quant="q4f16_1")

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("bert-mha32", "bert"),
        ("nomic_bert-mha64", "nomic-bert"),
        ("modernbert-mha64", "modern-bert"),
        ("gptoss-gqa64-sinks", "gpt-oss"),
        ("lfm2-gqa64", "lfm2"),
        ("lfm2moe-gqa64", "lfm2moe"),
        ("gpt2-mha64", "gpt2"),
        ("gemma4-mqa32-shared", "gemma4"),
        ("gemma3n-mqa32-shared", "gemma3n"),
    ],
)
def test_a_family_that_mlc_does_not_have_is_refused_by_name(
    name: str, family: str, tmp_path: Path
) -> None:
    folder = tiny.write(tiny.BY_NAME[name], tmp_path / "hf")

    with pytest.raises(UnsupportedError, match=rf"\b{family}\b.* exported for MLC LLM") as caught:
        convert(folder, tmp_path / "out", quant="q4f16_1")

    assert "--to gguf" in str(caught.value.hint)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "tokens"),
    [("qwen2-mqa64-window", 16), ("phi3-gqa64-window", 16), ("phi3-gqa128-longrope-tied", 32)],
)
def test_a_context_ends_where_mlc_would_compute_otherwise(
    name: str, tokens: int, tmp_path: Path
) -> None:
    config, report = written(name, tmp_path)

    assert config["context_window_size"] == tokens
    assert config["prefill_chunk_size"] == tokens
    assert any(f"after {tokens} tokens" in note for note in report.notes)


def test_mistral_keeps_its_window(tmp_path: Path) -> None:
    config, report = written("mistral-gqa64-window", tmp_path)

    assert (config["sliding_window_size"], config["context_window_size"]) == (16, -1)
    assert config["model_config"]["sliding_window_size"] == 16
    assert not any("window" in note for note in report.notes)


def test_gemma_says_what_mlc_leaves_out(tmp_path: Path) -> None:
    config, report = written("gemma2-mqa128-scale", tmp_path)

    settings = config["model_config"]
    assert settings["query_pre_attn_scalar"] == 48
    assert settings["final_logit_softcapping"] == 1.5
    assert any("soft cap" in note for note in report.notes)


def test_phi3_has_both_lists_of_factors(tmp_path: Path) -> None:
    config, _ = written("phi3-gqa128-longrope-tied", tmp_path)

    settings, stated = config["model_config"], tiny.BY_NAME["phi3-gqa128-longrope-tied"].config
    assert settings["rope_scaling"] == {
        "type": "longrope",
        "long_factor": stated["rope_scaling"]["long_factor"],
        "short_factor": stated["rope_scaling"]["short_factor"],
    }
    assert settings["original_max_position_embeddings"] == 32
    assert settings["partial_rotary_factor"] == 0.75
