"""Recipes: which tensor gets which type, by hand and as llama.cpp chooses."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from pathlib import Path

import gguf
import numpy as np
import pytest

from edgeinfer.arch import config_from_gguf
from edgeinfer.arch.config import ModelConfig
from edgeinfer.errors import UsageError
from edgeinfer.formats.gguf import open_gguf
from edgeinfer.quant import get
from edgeinfer.quant.assignment import Overrides, assign
from edgeinfer.quant.recipes import RECIPES, get_recipe
from support import tiny

Shapes = dict[str, tuple[int, ...]]


def model(
    *,
    architecture: str = "llama",
    layers: int = 16,
    heads: int = 8,
    kv_heads: int = 2,
    tied: bool = False,
) -> ModelConfig:
    return ModelConfig(
        architecture=architecture,
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


def shapes_of(
    config: ModelConfig,
    width: int = 256,
    ff_width: int = 512,
    experts: int = 0,
    dense_layers: int = 0,
    fused: bool = False,
) -> Shapes:
    """Names and shapes of a whole model, the rows kept few."""
    shapes: Shapes = {"token_embd.weight": (64, width), "output_norm.weight": (width,)}
    if not config.tied_output:
        shapes["output.weight"] = (64, width)
    for layer in range(config.layers):
        mixed = experts and layer >= dense_layers
        stack, suffix = ((experts,), "_exps") if mixed else ((), "")
        attention = (
            {"attn_qkv": (48, width)}
            if fused
            else {"attn_q": (16, width), "attn_k": (16, width), "attn_v": (16, width)}
        )
        shapes |= {
            f"blk.{layer}.{name}.weight": shape
            for name, shape in {
                "attn_norm": (width,),
                **attention,
                "attn_output": (16, width),
                "ffn_norm": (width,),
                **({"ffn_gate_inp": (experts, width)} if mixed else {}),
                f"ffn_gate{suffix}": (*stack, 16, width),
                f"ffn_up{suffix}": (*stack, 16, width),
                f"ffn_down{suffix}": (*stack, 16, ff_width),
            }.items()
        }
    return shapes


def encoder_shapes(config: ModelConfig, width: int) -> Shapes:
    """Those of a BERT: no output, a table of positions and of kinds of texts, no gate."""
    shapes: Shapes = {
        "token_embd.weight": (64, width),
        "position_embd.weight": (16, width),
        "token_types.weight": (2, width),
        "token_embd_norm.weight": (width,),
    }
    for layer in range(config.layers):
        block: Shapes = {
            **dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (16, width)),
            "attn_output_norm": (width,),
            "ffn_up": (16, width),
            "ffn_down": (16, 4 * width),
            "layer_output_norm": (width,),
        }
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in block.items()}
    return shapes


def chosen(
    recipe: str,
    config: ModelConfig | None = None,
    shapes: Shapes | None = None,
    overrides: Overrides | None = None,
) -> Mapping[str, str]:
    config = config or model()
    choices = assign(get_recipe(recipe), shapes or shapes_of(config), config, overrides=overrides)
    return {name: choice.type.name for name, choice in choices.items()}


@pytest.mark.parametrize("recipe", RECIPES)
def test_vectors_norms_and_routers_stay_float32(recipe: str) -> None:
    types = chosen(recipe, shapes=shapes_of(model(), experts=4) | {"blk.0.attn_q.bias": (256,)})

    assert types["output_norm.weight"] == types["blk.0.attn_q.bias"] == "f32"
    assert types["blk.3.ffn_gate_inp.weight"] == "f32"


def test_q4_k_m_spends_more_bits_on_outer_layers_and_every_third() -> None:
    types = chosen("q4_k_m")

    down = [types[f"blk.{layer}.ffn_down.weight"] for layer in range(16)]
    assert [layer for layer, name in enumerate(down) if name == "q6_k"] == [
        0, 1, 4, 7, 10, 13, 14, 15,
    ]  # fmt: skip
    assert set(down) == {"q4_k", "q6_k"}
    assert types["blk.0.ffn_up.weight"] == "q4_k"


def test_a_tied_embedding_is_stored_as_the_output_is() -> None:
    assert chosen("q4_0", model(tied=True))["token_embd.weight"] == "q6_k"
    assert chosen("q4_0")["token_embd.weight"] == "q4_0"
    assert chosen("q4_0")["output.weight"] == "q6_k"
    assert chosen("q8_0")["output.weight"] == "q8_0"


@pytest.mark.parametrize(
    ("recipe", "cols", "expected"),
    [
        ("q4_k_s", 576, "q5_0"),
        ("q5_k_s", 576, "q5_1"),
        ("q6_k", 576, "q8_0"),
        ("q3_k_s", 576, "q4_0"),
        ("q2_k", 576, "q4_0"),
        ("iq4_xs", 576, "iq4_nl"),
        ("iq3_s", 576, "iq4_nl"),
        ("iq2_xs", 576, "iq4_nl"),
        ("iq1_m", 576, "iq4_nl"),
        ("tq2_0", 576, "q4_0"),
        ("q4_0", 40, "f16"),
        ("q4_k_s", 40, "f16"),
        ("f32", 40, "f32"),
    ],
)
def test_rows_that_are_not_whole_blocks_get_a_type_that_fits(
    recipe: str, cols: int, expected: str
) -> None:
    config = model()

    choice = assign(get_recipe(recipe), shapes_of(config, width=cols), config)

    up = choice["blk.9.ffn_up.weight"]
    assert up.type.name == expected
    assert up.wanted.name == get_recipe(recipe).base


def test_patterns_win_over_the_recipe_and_the_first_that_matches_wins() -> None:
    overrides = Overrides(tensors=((r"blk\.0\.ffn", "q8_0"), ("ffn_down", "f16")))

    types = chosen("q4_k_m", overrides=overrides)

    assert types["blk.0.ffn_up.weight"] == types["blk.0.ffn_down.weight"] == "q8_0"
    assert types["blk.1.ffn_down.weight"] == "f16"
    assert types["blk.1.ffn_up.weight"] == "q4_k"
    assert types["blk.0.ffn_norm.weight"] == "f32"


def test_the_output_and_the_embedding_have_options_of_their_own() -> None:
    both = Overrides(output="q8_0", embedding="q5_0", pure=True)

    assert chosen("q4_0", overrides=both)["output.weight"] == "q8_0"
    assert chosen("q4_0", overrides=both)["token_embd.weight"] == "q5_0"
    assert chosen("q4_0", model(tied=True), overrides=both)["token_embd.weight"] == "q5_0"
    output = Overrides(output="q8_0")
    assert chosen("q4_0", model(tied=True), overrides=output)["token_embd.weight"] == "q8_0"


def test_inputs_of_layers_follow_the_embedding_unless_they_are_named() -> None:
    table = "per_layer_token_embd.weight"
    shapes = shapes_of(model()) | {table: (64, 512)}

    assert chosen("q4_0", shapes=shapes, overrides=Overrides(embedding="q5_0"))[table] == "q5_0"
    named = Overrides(embedding="q5_0", tensors=(("per_layer_token", "q8_0"),))
    assert chosen("q4_0", shapes=shapes, overrides=named)[table] == "q8_0"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (Overrides(tensors=(("ffn_downn", "q8_0"),)), "matches 'ffn_downn'"),
        (Overrides(tensors=(("ffn_(", "q8_0"),)), "is no pattern"),
        (Overrides(tensors=(("ffn_down", "q9_9"),)), "'q9_9'"),
    ],
)
def test_overrides_that_cannot_be_followed_are_refused(overrides: Overrides, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        chosen("q4_0", overrides=overrides)


def test_names_are_found_in_any_case_and_by_their_short_form() -> None:
    assert get_recipe("Q4_K_M") is get_recipe("q4_k") is RECIPES["q4_k_m"]


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="q4_k_x") as caught:
        get_recipe("q4_k_x")

    assert caught.value.hint is not None
    assert all(name in caught.value.hint for name in RECIPES)


def test_every_recipe_names_types_that_exist() -> None:
    for recipe in RECIPES.values():
        for name in (recipe.base, recipe.output, *(rule.type for rule in recipe.rules)):
            assert get(name).name == name


def write_model(path: Path, config: ModelConfig, shapes: Shapes) -> None:
    """Random weights under a header that llama.cpp's quantiser accepts."""
    ff_width = next(shape[-1] for name, shape in shapes.items() if "ffn_down" in name)
    writer = gguf.GGUFWriter(path, config.architecture)
    width = shapes["token_embd.weight"][1]
    writer.add_block_count(config.layers)
    writer.add_context_length(config.context)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(ff_width)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_layer_norm_eps(config.norm_eps)
    writer.add_causal_attention(config.architecture != "bert")
    writer.add_vocab_size(config.vocab_size)
    experts = max((s[0] for s in shapes.values() if len(s) == 3), default=0)
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(2)
        writer.add_expert_feed_forward_length(ff_width)
    if config.architecture == "lfm2moe":
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
        writer.add_leading_dense_block_count(2)
        writer.add_shortconv_l_cache(3)
    rng = np.random.default_rng(0)
    for name, shape in shapes.items():
        writer.add_tensor(name, rng.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# llama.cpp has no name for a dense model in mxfp4, and quantises nothing to one type of float.
FTYPES = {
    "f32": "ALL_F32",
    **{name: "MOSTLY_" + name.upper() for name in RECIPES if name not in ("f32", "mxfp4")},
}
# llama-quantize refuses to write these without importances.
NEEDS_IMPORTANCE = {
    "q2_k_s", "iq3_xs", "iq3_xxs", "iq2_m", "iq2_s", "iq2_xs", "iq2_xxs", "iq1_m", "iq1_s",
}  # fmt: skip

LARGE = model(layers=80, heads=16, kv_heads=2)
SHAPES = {
    "grouped": (model(), {}),
    "ungrouped": (model(kv_heads=8, layers=17), {}),
    "smollm2": (model(layers=30, heads=9, kv_heads=3, tied=True), {"width": 288}),
    "tied": (model(tied=True, layers=8), {"ff_width": 544}),
    "eight-to-one": (model(heads=16), {}),
    "70b": (LARGE, {}),
    "70b-qwen2": (model(architecture="qwen2", layers=80, heads=8, kv_heads=8), {}),
    "fused": (model(architecture="phi3", layers=12), {"fused": True}),
    "mixtral": (model(layers=9), {"experts": 8}),
    "experts": (model(architecture="qwen3moe", layers=9), {"experts": 12}),
    "dense-first": (
        model(architecture="lfm2moe", layers=9, tied=True),
        {"experts": 4, "dense_layers": 2},
    ),
}  # fmt: skip
BERT = model(architecture="bert", layers=12, heads=12, kv_heads=12)
MODELS: dict[str, tuple[ModelConfig, Shapes]] = {
    **{name: (config, shapes_of(config, **form)) for name, (config, form) in SHAPES.items()},
    "bert-384": (BERT, encoder_shapes(BERT, 384)),
    "bert-768": (BERT, encoder_shapes(BERT, 768)),
}


def llama_cpp_types(
    source: Path, target: Path, ftype: str, shapes: Shapes, *, weighted: bool, **options: bool
) -> Iterator[tuple[str, str]]:
    import llama_cpp.llama_cpp as llama

    params = llama.llama_model_quantize_default_params()
    params.ftype = getattr(llama, f"LLAMA_FTYPE_{ftype}")
    params.nthread = 1
    for name, value in options.items():
        setattr(params, name, value)
    if weighted:
        matrices = {name: shape for name, shape in shapes.items() if len(shape) > 1}
        sizes = {n: s[-1] * (s[0] if len(s) == 3 else 1) for n, s in matrices.items()}
        ones = np.ones(max(sizes.values()), np.float32)
        pointer = ones.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        record = llama.llama_model_imatrix_data
        entries = [record(name.encode(), pointer, size) for name, size in sizes.items()]
        params.imatrix = (record * (len(entries) + 1))(*entries)
    status = llama.llama_model_quantize(str(source).encode(), str(target).encode(), params)
    assert status == 0
    for tensor in gguf.GGUFReader(target).tensors:
        yield tensor.name, tensor.tensor_type.name.lower()


@pytest.mark.peer
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "importance"])
@pytest.mark.parametrize("family", MODELS)
def test_every_recipe_mixes_types_as_llama_cpp_does(
    family: str, weighted: bool, tmp_path: Path
) -> None:
    config, shapes = MODELS[family]
    source = tmp_path / "source.gguf"
    write_model(source, config, shapes)
    different = []
    for recipe, ftype in FTYPES.items():
        if recipe in NEEDS_IMPORTANCE and not weighted:
            continue
        # llama.cpp's base of mxfp4_moe is mxfp4, which no matrix but a pure one meets.
        for pure in (False, True)[: 1 if recipe == "mxfp4_moe" else 2]:
            overrides = Overrides(pure=pure)
            ours = assign(
                get_recipe(recipe), shapes, config, overrides=overrides, weighted=weighted
            )
            theirs = llama_cpp_types(
                source, tmp_path / "out.gguf", ftype, shapes, weighted=weighted, pure=pure
            )
            different += [
                f"{recipe}{' pure' * pure}: {name} {shapes[name]}: {ours[name].type}, not {type_}"
                for name, type_ in theirs
                if ours[name].type.name != type_
            ]

    assert different == []


@pytest.mark.peer
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("model", ["gemma4-mqa32-shared", "gemma3n-mqa32-shared"])
def test_inputs_of_layers_are_mixed_as_in_llama_cpp(model: str, tied: bool, tmp_path: Path) -> None:
    """Their table is stored as the token embedding is, what it is added to as float32."""
    shape = {"hidden_size": 256, "intermediate_size": 512, "hidden_size_per_layer_input": 256}
    source = tiny.write_gguf(model, tmp_path, **shape, tie_word_embeddings=tied)
    with open_gguf(source) as file:
        config = config_from_gguf(file)
        shapes = {name: info.shape for name, info in file.tensors.items()}
    assert shapes["per_layer_token_embd.weight"] == (331, 6 * 256)

    for recipe in FTYPES.keys() - NEEDS_IMPORTANCE:
        ours = assign(get_recipe(recipe), shapes, config)
        theirs = llama_cpp_types(
            source, tmp_path / "out.gguf", FTYPES[recipe], shapes, weighted=False
        )
        assert {name: ours[name].type.name for name in shapes} == dict(theirs), recipe
