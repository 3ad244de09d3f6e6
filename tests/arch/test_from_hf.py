"""config.json: both spellings, the defaults of transformers, and errors that name the key."""

from __future__ import annotations

import math
from typing import Any

import pytest

from edgeinfer.arch import config_from_hf
from edgeinfer.errors import CorruptFileError, EdgeInferError, UnsupportedError
from support import tiny

LLAMA = dict(tiny.BY_NAME["llama-gqa64-tied"].config)


def changed(name: str = "llama-gqa64-tied", **changes: Any) -> dict[str, Any]:
    return {**tiny.BY_NAME[name].config, **changes}


def test_both_spellings_of_rope_settings_say_the_same() -> None:
    scaling = {"rope_type": "linear", "factor": 4.0}

    old = changed(rope_theta=500.0, rope_scaling=scaling)
    new = changed(rope_parameters={"rope_theta": 500.0, **scaling})

    assert config_from_hf(old) == config_from_hf(new)
    assert config_from_hf(old) != config_from_hf(LLAMA)


def test_both_spellings_of_gemma3s_two_rotary_bases_say_the_same() -> None:
    old = changed("gemma3-mha96-linear")
    new = dict(old)
    for key in ("rope_scaling", "rope_theta", "rope_local_base_freq"):
        del new[key]
    new["rope_parameters"] = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }

    config = config_from_hf(old)

    assert config == config_from_hf(new)
    assert config.layer_rope == (1, 0, 1, 0, 1, 0)
    assert config.layer_window == (16, 0, 16, 0, 16, 0)


def test_a_multimodal_checkpoint_keeps_its_text_settings_apart() -> None:
    text = changed("gemma3-gqa64")
    nested = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text}

    assert config_from_hf(nested) == config_from_hf(text)


def test_gemma3_4b_leaves_most_of_its_numbers_to_the_defaults() -> None:
    # The whole text_config of google/gemma-3-4b-it.
    text = {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    }

    config = config_from_hf(
        {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text}
    )

    assert (config.heads, config.kv_heads, config.head_dim) == (8, 4, 256)
    assert config.attention_scale == 1 / 16
    assert config.layer_window[:6] == (1024,) * 5 + (0,)
    assert config.rope_tables[0].inverse_frequencies[0] == 1 / 8
    assert config.rope_tables[1].inverse_frequencies[0] == 1
    assert config.tied_output


def test_mistral_has_a_window_unless_the_file_says_null() -> None:
    silent = changed("mistral-gqa128")
    del silent["sliding_window"]

    assert config_from_hf(silent).layer_window == (4096,) * 3
    assert config_from_hf(changed("mistral-gqa128")).layer_window == (0,) * 3


def test_llama_has_no_window_whatever_the_file_says() -> None:
    assert config_from_hf(changed(sliding_window=16)) == config_from_hf(LLAMA)


def test_qwen_has_a_window_only_if_it_is_switched_on() -> None:
    windowed = changed("qwen2-mqa64-window")

    assert config_from_hf(windowed).layer_window == (0, 16, 16)
    assert config_from_hf({**windowed, "use_sliding_window": False}).layer_window == (0, 0, 0)


def test_smollm3_turns_all_but_every_fourth_layer() -> None:
    config = config_from_hf(changed("smollm3-gqa64-tied"))
    by_hand = config_from_hf(changed("smollm3-gqa64-tied", no_rope_layers=[0, 1, 1, 1, 1, 1]))

    assert config.layer_rope == (0, 0, 0, -1, 0, 0)
    assert by_hand.layer_rope == (-1, 0, 0, 0, 0, 0)


def test_the_context_decides_between_longropes_divisors() -> None:
    settings = changed("phi3-gqa96-shortrope")

    assert config_from_hf(settings, 256) != config_from_hf(settings, 257)
    assert config_from_hf(settings) == config_from_hf(settings, 1024)


@pytest.mark.parametrize(
    "key",
    [
        "architectures",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "max_position_embeddings",
        "rms_norm_eps",
        "vocab_size",
    ],
)
def test_a_missing_key_is_named(key: str) -> None:
    config = {k: v for k, v in LLAMA.items() if k != key}

    with pytest.raises(CorruptFileError, match=f"'{key}'"):
        config_from_hf(config)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", 0),
        ("hidden_size", "128"),
        ("num_hidden_layers", -1),
        ("num_hidden_layers", 1 << 20),
        ("num_attention_heads", 0),
        ("num_key_value_heads", 3),
        ("num_key_value_heads", 0),
        ("head_dim", 1 << 20),
        ("head_dim", 63),
        ("rms_norm_eps", 0.0),
        ("rms_norm_eps", float("nan")),
        ("rms_norm_eps", True),
        ("vocab_size", 2.5),
        ("rope_theta", float("inf")),
        ("rope_parameters", ["default"]),
        ("architectures", "LlamaForCausalLM"),
    ],
)
def test_a_value_that_makes_no_sense_is_named(key: str, value: object) -> None:
    named = {"head_dim": "head_dim|rotary lanes", "rope_theta": "rope_parameters.(rope_theta|base)"}

    with pytest.raises(CorruptFileError, match=named.get(key, key)):
        config_from_hf(changed(**{key: value}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised already"),
        ({"hidden_act": "relu"}, "'relu'"),
        ({"architectures": ["MambaForCausalLM"]}, "'MambaForCausalLM'"),
    ],
)
def test_what_the_graph_does_not_have_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        config_from_hf(changed(**changes))


def test_starcoder2_without_biases_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="use_bias"):
        config_from_hf(changed("starcoder2-gqa64", use_bias=False))


@pytest.mark.parametrize(
    "changes",
    [
        {"scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True},
        {"add_cross_attention": True},
        {"activation_function": "relu"},
    ],
)
def test_gpt2_with_another_graph_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError, match="gpt2"):
        config_from_hf(changed("gpt2-mha64", **changes))


def test_gpt2_has_a_table_of_positions_and_no_rotary_embedding() -> None:
    config = config_from_hf(changed("gpt2-mha64", n_positions=96))

    assert (config.positions, config.context, config.ff_width) == (96, 96, 4 * 192)
    assert config.rope_tables == ()
    assert set(config.layer_rope) == {-1}


def test_lfm2s_first_layers_have_no_experts() -> None:
    config = config_from_hf(changed("lfm2moe-gqa64"))

    first, other = config.at(1), config.at(2)
    assert (first.experts, first.ff_width) == (0, 160)
    assert (other.experts, other.experts_used, other.ff_width) == (8, 3, 96)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"use_expert_bias": False}, UnsupportedError),
        ({"norm_topk_prob": False}, UnsupportedError),
        ({"num_dense_layers": 5}, CorruptFileError),
        ({"num_dense_layers": -1}, CorruptFileError),
        ({"intermediate_size": 0}, CorruptFileError),
        ({"routed_scaling_factor": 0.0}, CorruptFileError),
    ],
)
def test_experts_that_lfm2_cannot_have_are_refused(
    changes: dict[str, Any], error: type[EdgeInferError]
) -> None:
    with pytest.raises(error, match=next(iter(changes)).replace("intermediate", ".*")):
        config_from_hf(changed("lfm2moe-gqa64", **changes))


def test_layers_of_a_type_the_graph_does_not_have_are_refused() -> None:
    types = ["full_attention", "linear_attention", "full_attention"]

    with pytest.raises(UnsupportedError, match="linear_attention"):
        config_from_hf(changed("qwen2-mqa64-window", layer_types=types))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (name, key)
        for name in ("gemma3-mha96-linear", "gemma3n-mqa32-shared")
        for key in sorted(tiny.BY_NAME[name].config)
    ],
)
@pytest.mark.parametrize("value", [None, -1, 0, 1 << 40, 0.5, "x", [], {}, True], ids=repr)
def test_no_value_of_any_key_is_anything_but_read_or_refused(
    name: str, key: str, value: object
) -> None:
    try:
        config_from_hf(changed(name, **{key: value}))
    except EdgeInferError as error:
        assert error.exit_code in (5, 6)


def test_gemma4_says_what_layers_differ_in_in_two_ways() -> None:
    """As published, and as transformers writes it again."""
    model = tiny.BY_NAME["gemma4-gqa32-keys-as-values"]
    published = dict(model.config)
    again = {k: v for k, v in published.items() if "global" not in k}
    other = {"head_dim": 64, "num_key_value_heads": 1}
    again["per_layer_config"] = {"2": other, "5": other}

    assert config_from_hf(again) == config_from_hf(published)
    assert config_from_hf(published).layer_head_dim == (32, 32, 64) * 2
    assert config_from_hf(published).layer_kv_heads == (2, 2, 1) * 2


def test_gemma4s_last_layer_has_no_window() -> None:
    model = tiny.BY_NAME["gemma4-gqa32-keys-as-values"]

    config = config_from_hf({**model.config, "layer_types": ["sliding_attention"] * 6})

    assert config.layer_window == (16, 16, 16, 16, 16, 0)


@pytest.mark.parametrize(
    ("changes", "error", "named"),
    [
        ({"num_kv_shared_layers": 6}, CorruptFileError, "num_kv_shared_layers"),
        ({"num_kv_shared_layers": -1}, CorruptFileError, "num_kv_shared_layers"),
        ({"num_kv_shared_layers": 4}, CorruptFileError, "num_kv_shared_layers"),
        ({"hidden_size_per_layer_input": -1}, CorruptFileError, "hidden_size_per_layer_input"),
        ({"vocab_size_per_layer_input": 300}, UnsupportedError, "vocab_size_per_layer_input"),
        ({"use_bidirectional_attention": "all"}, UnsupportedError, "bidirectional"),
        ({"per_layer_config": {"0": {"head_dim": 48}}}, UnsupportedError, "more lengths"),
    ],
)
def test_layers_that_cannot_be_are_named(
    changes: dict[str, Any], error: type[Exception], named: str
) -> None:
    config = {**tiny.BY_NAME["gemma4-mqa32-shared"].config, **changes}

    with pytest.raises(error, match=named):
        config_from_hf(config)


@pytest.mark.parametrize(
    ("changes", "error", "named"),
    [
        ({"altup_num_inputs": 9}, CorruptFileError, "altup_num_inputs"),
        ({"altup_active_idx": 1}, UnsupportedError, "altup_active_idx"),
        ({"altup_correct_scale": False}, UnsupportedError, "altup_correct_scale"),
        ({"laurel_rank": 0}, CorruptFileError, "laurel_rank"),
        ({"activation_sparsity_pattern": [0.5] * 5}, CorruptFileError, "sparsity_pattern"),
        ({"activation_sparsity_pattern": [1.0] * 6}, CorruptFileError, "sparsity_pattern"),
        ({"vocab_size_per_layer_input": 332}, UnsupportedError, "vocab_size_per_layer_input"),
        ({"intermediate_size": [160] * 5}, CorruptFileError, "intermediate_size"),
    ],
)
def test_streams_and_gates_that_cannot_be_are_named(
    changes: dict[str, Any], error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named):
        config_from_hf(changed("gemma3n-mqa32-shared", **changes))


@pytest.mark.peer
def test_gemma3n_is_by_default_what_transformers_takes() -> None:
    from transformers import Gemma3nTextConfig

    name = {"architectures": ["Gemma3nForCausalLM"]}

    assert config_from_hf(name) == config_from_hf(Gemma3nTextConfig().to_dict() | name)
    assert config_from_hf(name).layer_cutoff[9:11] == (pytest.approx(1.6448536), -math.inf)
