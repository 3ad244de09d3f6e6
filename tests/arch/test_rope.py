"""Every way to stretch RoPE, against the formulas of transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeinfer.arch import by_hf_class
from edgeinfer.arch.rope import STILL, Rope, RopeKind
from edgeinfer.arch.rope_from_hf import read_rope
from edgeinfer.errors import CorruptFileError, UnsupportedError

CONTEXT = 8192
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "default-partial": {"rope_type": "default", "partial_rotary_factor": 0.75},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 2048,
    },
    "proportional": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "factor": 8.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048},
    "yarn-by-hand": {
        "rope_type": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": 1024,
        "attention_factor": 0.75,
        "beta_fast": 24.0,
        "beta_slow": 2.0,
    },
    "yarn-mscale": {
        "rope_type": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": 1024,
        "mscale": 0.5,
        "mscale_all_dim": 0.75,
    },
    "longrope": {
        "rope_type": "longrope",
        "original_max_position_embeddings": 2048,
        "long_factor": [1.0 + i for i in range(32)],
        "short_factor": [1.0 + i / 64 for i in range(32)],
    },
}
HEAD_DIM = {"longrope": 64}


def read(name: str, head_dim: int, base: float = 500000.0) -> Rope:
    values = {"rope_theta": base, **SETTINGS[name]}
    arch = by_hf_class("LlamaForCausalLM")
    return read_rope(values, arch, head_dim=head_dim, context=CONTEXT)


@pytest.mark.peer
@pytest.mark.parametrize("tokens", [512, 4096])  # below and above the original context
@pytest.mark.parametrize("base", [10000.0, 500000.0])
@pytest.mark.parametrize("head_dim", [64, 96, 128])
@pytest.mark.parametrize("name", SETTINGS)
def test_frequencies_are_those_of_transformers(
    name: str, head_dim: int, base: float, tokens: int
) -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    head_dim = HEAD_DIM.get(name, head_dim)
    config = LlamaConfig(
        hidden_size=4 * head_dim,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_theta": base, **SETTINGS[name]},
    )
    kind = SETTINGS[name]["rope_type"]
    if kind == "default":
        dim = int(head_dim * SETTINGS[name].get("partial_rotary_factor", 1.0))
        wanted = base ** -(np.arange(0, dim, 2) / dim)
        magnitude = 1.0
        if dim == head_dim:
            wanted = LlamaRotaryEmbedding.compute_default_rope_parameters(config)[0].numpy()
    else:
        frequencies, magnitude = ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=tokens)
        wanted = frequencies.numpy()

    table = read(name, head_dim, base).table(tokens)

    np.testing.assert_allclose(table.inverse_frequencies, wanted, rtol=2e-6)
    assert table.magnitude == pytest.approx(magnitude, rel=1e-9)


def test_longrope_takes_the_long_divisors_above_the_original_context() -> None:
    rope = read("longrope", 64, base=10000.0)

    short, long = rope.table(2048), rope.table(2049)

    assert long.inverse_frequencies[31] == pytest.approx(10000.0 ** (-62 / 64) / 32)
    assert short.inverse_frequencies[31] == pytest.approx(10000.0 ** (-62 / 64) / (1 + 31 / 64))


def test_a_pair_that_stands_still_has_the_frequency_zero() -> None:
    rope = Rope(dim=4, base=100.0, kind=RopeKind.NONE, divisors=(2.0, STILL))

    assert rope.table(1).inverse_frequencies == (0.5, 0.0)


def test_dynamic_scaling_changes_nothing_up_to_the_trained_context() -> None:
    arch = by_hf_class("LlamaForCausalLM")

    dynamic = read_rope({"type": "dynamic", "factor": 2.0}, arch, head_dim=64, context=CONTEXT)

    assert dynamic == read_rope({}, arch, head_dim=64, context=CONTEXT)


def test_phi3_calls_longrope_yarn() -> None:
    settings = {**SETTINGS["longrope"], "rope_type": "yarn"}

    rope = read_rope(settings, by_hf_class("Phi3ForCausalLM"), head_dim=64, context=CONTEXT)

    assert rope.kind is RopeKind.LONGROPE


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"rope_type": "spiral"}, UnsupportedError, "'spiral'"),
        ({"rope_type": "linear"}, CorruptFileError, "factor' is missing"),
        ({"rope_type": "linear", "factor": "4"}, CorruptFileError, "factor' is '4'"),
        ({"rope_type": "longrope"}, CorruptFileError, "long_factor' is missing"),
        ({"rope_type": "yarn", "truncate": False}, UnsupportedError, "truncate"),
        ({"rope_theta": 0}, CorruptFileError, "rope_theta"),
        ({"partial_rotary_factor": 0.001}, CorruptFileError, "0 rotary lanes"),
    ],
)
def test_settings_that_make_no_sense_are_named(
    changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        read_rope(changes, by_hf_class("LlamaForCausalLM"), head_dim=64, context=CONTEXT)
