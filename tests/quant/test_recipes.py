"""Recipes: which tensor gets which type, by hand and as llama.cpp chooses."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from edgeinfer.arch.config import ModelConfig
from edgeinfer.errors import UsageError
from edgeinfer.quant import recipes
from edgeinfer.quant.recipes import RECIPES, choose, get_recipe


def model(
    *, layers: int = 16, heads: int = 8, kv_heads: int = 2, tied: bool = False
) -> ModelConfig:
    return ModelConfig(
        architecture="llama",
        vocab_size=64,
        context=128,
        layers=layers,
        width=256,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=32,
        ff_width=512,
        norm_eps=1e-5,
        attention_scale=32**-0.5,
        layer_rope=(0,) * layers,
        layer_window=(0,) * layers,
        tied_output=tied,
    )


def chosen(recipe: str, tensor: str, cols: int = 256, config: ModelConfig | None = None) -> str:
    return choose(get_recipe(recipe), tensor, (64, cols), config or model()).name


@pytest.mark.parametrize("recipe", RECIPES)
def test_vectors_and_norms_stay_float32(recipe: str) -> None:
    assert choose(get_recipe(recipe), "output_norm.weight", (256,), model()).name == "f32"
    assert choose(get_recipe(recipe), "blk.0.attn_q.bias", (256,), model()).name == "f32"
    assert chosen(recipe, "blk.0.attn_q_norm.weight") == "f32"


def test_q4_k_m_spends_more_bits_on_outer_layers_and_every_third() -> None:
    types = [chosen("q4_k_m", f"blk.{layer}.ffn_down.weight") for layer in range(16)]

    assert [layer for layer, name in enumerate(types) if name == "q6_k"] == [
        0, 1, 4, 7, 10, 13, 14, 15,
    ]  # fmt: skip
    assert set(types) == {"q4_k", "q6_k"}
    assert chosen("q4_k_m", "blk.0.ffn_up.weight") == "q4_k"


def test_a_tied_embedding_is_stored_as_the_output_is() -> None:
    assert chosen("q4_0", "token_embd.weight", config=model(tied=True)) == "q6_k"
    assert chosen("q4_0", "token_embd.weight", config=model(tied=False)) == "q4_0"
    assert chosen("q4_0", "output.weight") == "q6_k"
    assert chosen("q8_0", "output.weight") == "q8_0"


@pytest.mark.parametrize(
    ("recipe", "cols", "expected"),
    [
        ("q4_k_s", 576, "q5_0"),
        ("q5_k_s", 576, "q5_1"),
        ("q6_k", 576, "q8_0"),
        ("q3_k_s", 576, "q4_0"),
        ("q2_k", 576, "q4_0"),
        ("iq4_xs", 576, "iq4_nl"),
        ("q4_0", 40, "f16"),
        ("q4_k_s", 40, "f16"),
        ("f32", 40, "f32"),
    ],
)
def test_rows_that_are_not_whole_blocks_get_a_type_that_fits(
    recipe: str, cols: int, expected: str
) -> None:
    assert chosen(recipe, "blk.9.ffn_up.weight", cols) == expected


def test_names_are_found_in_any_case_and_by_their_short_form() -> None:
    assert get_recipe("Q4_K_M") is get_recipe("q4_k") is RECIPES["q4_k_m"]


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="q4_k_x") as caught:
        get_recipe("q4_k_x")

    assert caught.value.hint is not None
    assert all(name in caught.value.hint for name in RECIPES)


def write_model(path: Path, config: ModelConfig, width: int, ff_width: int) -> None:
    """A Llama of random weights that llama.cpp's quantiser accepts."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.layers)
    writer.add_context_length(config.context)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(ff_width)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_vocab_size(config.vocab_size)
    rng = np.random.default_rng(0)
    kv_width = width * config.kv_heads // config.heads
    shapes = {
        "token_embd": (config.vocab_size, width),
        "output_norm": (width,),
        **({} if config.tied_output else {"output": (config.vocab_size, width)}),
    }
    for layer in range(config.layers):
        shapes |= {
            f"blk.{layer}.attn_norm": (width,),
            f"blk.{layer}.attn_q": (width, width),
            f"blk.{layer}.attn_k": (kv_width, width),
            f"blk.{layer}.attn_v": (kv_width, width),
            f"blk.{layer}.attn_output": (width, width),
            f"blk.{layer}.ffn_norm": (width,),
            f"blk.{layer}.ffn_gate": (ff_width, width),
            f"blk.{layer}.ffn_up": (ff_width, width),
            f"blk.{layer}.ffn_down": (width, ff_width),
        }
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# llama.cpp has no name for a dense model in mxfp4.
FTYPES = {
    "f32": "ALL_F32",
    **{name: "MOSTLY_" + name.upper() for name in RECIPES if name not in ("f32", "mxfp4")},
}


@pytest.mark.peer
@pytest.mark.parametrize(
    ("config", "width", "ff_width"),
    [
        pytest.param(model(), 256, 512, id="grouped"),
        pytest.param(model(kv_heads=8, layers=17), 256, 512, id="ungrouped"),
        pytest.param(model(layers=30, heads=9, kv_heads=3, tied=True), 288, 512, id="smollm2"),
        pytest.param(model(tied=True, layers=8), 256, 544, id="tied"),
    ],
)
def test_every_recipe_mixes_types_as_llama_cpp_does(
    config: ModelConfig, width: int, ff_width: int, tmp_path: Path
) -> None:
    import llama_cpp.llama_cpp as llama

    source = tmp_path / "source.gguf"
    write_model(source, config, width, ff_width)
    different = []
    for name, ftype in FTYPES.items():
        target = tmp_path / f"{name}.gguf"
        params = llama.llama_model_quantize_default_params()
        params.ftype = getattr(llama, f"LLAMA_FTYPE_{ftype}")
        params.nthread = 1

        status = llama.llama_model_quantize(str(source).encode(), str(target).encode(), params)

        assert status == 0
        for tensor in gguf.GGUFReader(target).tensors:
            shape = tuple(int(n) for n in reversed(tensor.shape))
            ours = choose(RECIPES[name], tensor.name, shape, config).name
            theirs = tensor.tensor_type.name.lower()
            if ours != theirs:
                different.append(f"{name}: {tensor.name} {shape}: {ours}, llama.cpp {theirs}")

    assert different == []


def test_every_recipe_names_types_that_exist() -> None:
    for recipe in RECIPES.values():
        for name in (recipe.base, recipe.output, *(rule.type for rule in recipe.rules)):
            assert recipes.get(name).name == name
