"""GGUF metadata: what is written is read again, and errors name the key."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeinfer.arch import config_from_gguf, numbers_from_hf, to_gguf
from edgeinfer.arch.from_gguf import read_gguf
from edgeinfer.arch.tensors import checkpoint_names, file_shape
from edgeinfer.errors import CorruptFileError, EdgeInferError, UnsupportedError
from support import tiny


@dataclass
class Tensor:
    shape: tuple[int, ...]


@dataclass
class FakeGguf:
    """A GGUF file as far as its numbers are read."""

    metadata: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    octets: dict[str, NDArray[np.uint8]] = field(default_factory=dict)

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        return {name: Tensor(shape) for name, shape in self.shapes.items()}

    def data(self, name: str) -> NDArray[np.uint8]:
        return self.octets[name]


def gguf_of(name: str, **changes: Any) -> FakeGguf:
    """The file a converter would write of a tiny model; a change of None takes a key away."""
    model = tiny.BY_NAME[name]
    arch, numbers = numbers_from_hf(model.config)
    metadata = {key: as_read(value) for key, value in to_gguf.metadata(numbers, arch).items()}
    for key, value in changes.items():
        full = f"{arch.name}.{key}" if not key.startswith("general") else key
        metadata.pop(full, None)
        if value is not None:
            metadata[full] = value
    config = numbers.model_config(arch)
    names = checkpoint_names(arch, config, model.config)
    shapes = {key: file_shape(arch, config, key) for key in names}
    divisors = to_gguf.rope_tensors(numbers)
    shapes |= {key: value.shape for key, value in divisors.items()}
    return FakeGguf(metadata, shapes, {key: v.view(np.uint8) for key, v in divisors.items()})


def as_read(value: Any) -> Any:
    """The value after a trip through a file: float32, arrays of numpy."""
    if isinstance(value, tuple):
        return np.array(value)
    return float(np.float32(value)) if isinstance(value, float) else value


def close(a: object, b: object) -> bool:
    """Equality up to the rounding to float32."""
    if isinstance(a, float):
        return a == pytest.approx(b, rel=1e-6)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(close(x, y) for x, y in zip(a, b, strict=True))
    if dataclasses.is_dataclass(a):
        return type(a) is type(b) and all(
            close(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a)
        )
    return a == b


@pytest.mark.parametrize("model", tiny.ALL, ids=str)
def test_what_is_written_is_read_again(model: tiny.Tiny) -> None:
    arch, numbers = numbers_from_hf(model.config)

    found = read_gguf(gguf_of(model.name), arch)

    assert close(numbers, found), f"{numbers}\n{found}"


def test_a_plain_llama_needs_few_keys() -> None:
    gguf = gguf_of(
        "llama-gqa64-tied",
        **{
            key: None
            for key in (
                "vocab_size",
                "attention.key_length",
                "attention.value_length",
                "rope.dimension_count",
                "rope.freq_base",
            )
        },
    )

    assert config_from_gguf(gguf) == config_from_gguf(gguf_of("llama-gqa64-tied"))


def test_gemma2_takes_llama_cpps_defaults() -> None:
    silent = gguf_of(
        "gemma2-gqa64",
        **{
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "attention.sliding_window": None,
        },
    )

    config = config_from_gguf(silent)

    assert (config.attention_softcap, config.output_softcap) == (50.0, 30.0)
    assert config.layer_window == (4096, 0, 4096)


@pytest.mark.parametrize(("layers", "scale"), [(26, 64**-0.5), (46, 48**-0.5)])
def test_gemma2_27b_is_known_by_its_layers(layers: int, scale: float) -> None:
    gguf = gguf_of("gemma2-gqa64", block_count=layers)  # width 192, 4 heads of 64

    assert config_from_gguf(gguf).attention_scale == pytest.approx(scale)


def test_an_array_of_equal_numbers_is_a_number() -> None:
    heads = np.array([2, 2, 2], np.int32)

    config = config_from_gguf(gguf_of("llama-gqa64-tied", **{"attention.head_count_kv": heads}))

    assert config.kv_heads == 2


@pytest.mark.parametrize(
    "key",
    [
        "context_length",
        "embedding_length",
        "block_count",
        "feed_forward_length",
        "attention.head_count",
        "attention.layer_norm_rms_epsilon",
    ],
)
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(CorruptFileError, match=f"'llama.{key}' is missing"):
        config_from_gguf(gguf_of("llama-gqa64-tied", **{key: None}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("block_count", 0),
        ("block_count", 1 << 31),
        ("block_count", 3.0),
        ("embedding_length", "128"),
        ("attention.head_count", 0),
        ("attention.head_count_kv", 3),
        ("attention.head_count_kv", 0),
        ("attention.key_length", 0),
        ("attention.layer_norm_rms_epsilon", float("nan")),
        ("attention.layer_norm_rms_epsilon", -1.0),
        ("feed_forward_length", 0),
        ("context_length", 0),
        ("rope.dimension_count", 3),
        ("rope.dimension_count", 66),
        ("rope.freq_base", float("inf")),
        ("rope.freq_base", 0.0),
        ("rope.scaling.factor", -1.0),
        ("attention.scale", 0.0),
        ("logit_scale", 0.0),
    ],
)
def test_a_value_that_makes_no_sense_is_named(key: str, value: object) -> None:
    changes = {key: value, "attention.value_length": None}
    if key == "rope.scaling.factor":
        changes["rope.scaling.type"] = "yarn"

    with pytest.raises(CorruptFileError, match=key.replace(".", r"\.")):
        config_from_gguf(gguf_of("llama-gqa64-tied", **changes))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("general.architecture", "mamba", "'mamba'"),
        ("attention.value_length", 32, "value_length"),
        ("attention.head_count_kv", np.array([1, 2, 1], np.int32), "differs between layers"),
        ("rope.scaling.type", "spiral", "'spiral'"),
        ("pooling_type", 4, "pooling_type"),  # a reranker
    ],
)
def test_what_the_graph_does_not_have_is_refused(key: str, value: object, words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        config_from_gguf(gguf_of("llama-gqa64-tied", **{key: value}))


def test_experts_in_a_family_without_them_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="qwen2 with experts"):
        config_from_gguf(gguf_of("qwen2-gqa64-tied", expert_count=8))


@pytest.mark.parametrize(("key", "value"), [("expert_count", 0), ("expert_used_count", 9)])
def test_numbers_of_experts_are_checked(key: str, value: int) -> None:
    with pytest.raises(CorruptFileError, match=key):
        config_from_gguf(gguf_of("qwen3moe-gqa128", **{key: value}))


def test_lfm2_chooses_experts_by_sigmoids_alone() -> None:
    assert config_from_gguf(gguf_of("lfm2moe-gqa64", expert_gating_func=None)).experts == 8
    with pytest.raises(UnsupportedError, match="expert_gating_func"):
        config_from_gguf(gguf_of("lfm2moe-gqa64", expert_gating_func=1))


@pytest.mark.parametrize("count", [5, -1])
def test_layers_without_experts_are_counted(count: int) -> None:
    with pytest.raises(CorruptFileError, match="leading_dense_block_count"):
        config_from_gguf(gguf_of("lfm2moe-gqa64", leading_dense_block_count=count))


def test_a_layer_norm_has_its_own_key() -> None:
    assert config_from_gguf(gguf_of("starcoder2-mha96-untied")).norm_eps == pytest.approx(1e-3)
    with pytest.raises(CorruptFileError, match="layer_norm_epsilon"):
        config_from_gguf(gguf_of("starcoder2-gqa64", **{"attention.layer_norm_epsilon": 2.0}))


def test_granite_without_rotary_embeddings_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="rotary"):
        config_from_gguf(gguf_of("granite-gqa64-tied", **{"rope.scaling.finetuned": False}))


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("altup.num_inputs", None, CorruptFileError),
        ("altup.num_inputs", 0, CorruptFileError),
        ("altup.num_inputs", 9, CorruptFileError),
        ("altup.active_idx", 1, UnsupportedError),
        ("activation_sparsity_scale", None, CorruptFileError),
        ("activation_sparsity_scale", np.zeros(5, np.float32), CorruptFileError),
        ("activation_sparsity_scale", np.full(6, np.inf, np.float32), CorruptFileError),
        ("activation_sparsity_scale", np.full(6, np.nan, np.float32), CorruptFileError),
    ],
)
def test_streams_and_gates_that_cannot_be_are_named(
    key: str, value: object, error: type[Exception]
) -> None:
    with pytest.raises(error, match=key.replace(".", r"\.")):
        config_from_gguf(gguf_of("gemma3n-mqa32-shared", **{key: value}))


def test_the_rank_of_laurel_is_that_of_its_tensors() -> None:
    gguf = gguf_of("gemma3n-gqa64-other-numbers")

    assert config_from_gguf(gguf).laurel_rank == 24
    del gguf.shapes["blk.0.laurel_l.weight"]
    with pytest.raises(CorruptFileError, match=r"blk\.0\.laurel_l\.weight"):
        config_from_gguf(gguf)


def test_widths_of_layers_may_be_a_list_of_equal_ones() -> None:
    """As llama.cpp's converter writes those of Gemma 3n."""
    widths = np.full(6, 160, np.int32)

    found = config_from_gguf(gguf_of("gemma3n-mqa32-shared", feed_forward_length=widths))

    assert found == config_from_gguf(gguf_of("gemma3n-mqa32-shared"))


@pytest.mark.parametrize("architecture", [None, 7])
def test_a_file_that_does_not_say_its_architecture_is_corrupt(architecture: object) -> None:
    with pytest.raises(CorruptFileError, match=r"'general\.architecture'"):
        config_from_gguf(gguf_of("llama-gqa64-tied", **{"general.architecture": architecture}))


def test_rope_divisors_of_the_wrong_length_are_named() -> None:
    gguf = gguf_of("llama-mqa96-llama3")
    gguf.shapes["rope_freqs.weight"] = (47,)
    gguf.octets["rope_freqs.weight"] = gguf.octets["rope_freqs.weight"][:-4]

    with pytest.raises(CorruptFileError, match=r"rope_freqs\.weight.*47"):
        config_from_gguf(gguf)


HOSTILE = (-1, 0, 1, 1 << 31, (1 << 63) - 1, 0.0, -1.0, float("nan"), float("inf"), "x", True)


@pytest.mark.parametrize(
    "name",
    ["llama-gqa64-yarn", "gemma3-mha96-linear", "granite-gqa64-tied", "gemma3n-mqa32-shared"],
)
def test_no_value_of_any_key_is_anything_but_read_or_refused(name: str) -> None:
    keys = [key for key in gguf_of(name).metadata if key != "general.architecture"]
    arrays = [np.array([], np.float32), np.array([1, 2], np.int64), ["a"]]

    for key in keys:
        for value in (*HOSTILE, *arrays):
            gguf = gguf_of(name)
            gguf.metadata[key] = value
            try:
                config_from_gguf(gguf)
            except EdgeInferError as error:
                assert error.exit_code in (5, 6)
