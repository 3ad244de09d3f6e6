"""Which tensors there must be, their shapes, and which rows are which."""

from __future__ import annotations

import math

import pytest

from edgeinfer.arch import EngineTensor, config_from_hf, engine_tensors
from edgeinfer.arch.tensors import checkpoint_names, file_shape
from edgeinfer.errors import CorruptFileError, UnsupportedError
from support import tiny

Shapes = dict[str, tuple[int, ...]]


def file_of(name: str) -> Shapes:
    """The tensors of a model's GGUF."""
    model = tiny.BY_NAME[name]
    arch, config = model.arch, config_from_hf(model.config)
    return {
        name: file_shape(arch, config, name)
        for name in checkpoint_names(arch, config, model.config)
    }


def find(name: str, shapes: Shapes) -> dict[str, EngineTensor]:
    model = tiny.BY_NAME[name]
    found = engine_tensors(model.arch, config_from_hf(model.config), shapes)
    assert len({tensor.name for tensor in found}) == len(found)
    return {tensor.name: tensor for tensor in found}


@pytest.mark.parametrize("model", tiny.ALL, ids=str)
def test_every_row_of_every_tensor_is_used_once(model: tiny.Tiny) -> None:
    shapes = file_of(model.name)

    found = find(model.name, shapes).values()

    for source, shape in shapes.items():
        parts = sorted((t.row_start, t.row_count) for t in found if t.source == source)
        ends = [start + count for start, count in parts]
        assert [start for start, _ in parts] == [0, *ends[:-1]]
        assert ends[-1] == (math.prod(shape[:-1]) if len(shape) > 1 else shape[0])


def test_stacked_experts_are_taken_apart() -> None:
    found = find("qwen3moe-gqa128", file_of("qwen3moe-gqa128"))  # 8 experts of 96, width 192

    assert found["blk.2.ffn_gate.5.weight"] == EngineTensor(
        "blk.2.ffn_gate.5.weight", "blk.2.ffn_gate_exps.weight", 5 * 96, 96
    )
    assert found["blk.2.ffn_down.5.weight"] == EngineTensor(
        "blk.2.ffn_down.5.weight", "blk.2.ffn_down_exps.weight", 5 * 192, 192
    )


def test_fused_tensors_are_taken_apart_by_rows() -> None:
    found = find("phi3-gqa64-window", file_of("phi3-gqa64-window"))  # 4 heads, 2 kv heads of 64

    assert found["blk.1.attn_k.weight"] == EngineTensor(
        "blk.1.attn_k.weight", "blk.1.attn_qkv.weight", 256, 128
    )
    assert found["blk.1.ffn_gate.weight"] == EngineTensor(
        "blk.1.ffn_gate.weight", "blk.1.ffn_up.weight", 0, 160
    )
    assert found["blk.1.ffn_up.weight"] == EngineTensor(
        "blk.1.ffn_up.weight", "blk.1.ffn_up.weight", 160, 160
    )


def test_any_family_may_come_with_queries_keys_and_values_fused() -> None:
    shapes = file_of("llama-gqa64-tied")
    for part in "qkv":
        del shapes[f"blk.0.attn_{part}.weight"]
    shapes["blk.0.attn_qkv.weight"] = (512, 256)

    found = find("llama-gqa64-tied", shapes)

    assert found["blk.0.attn_v.weight"] == EngineTensor(
        "blk.0.attn_v.weight", "blk.0.attn_qkv.weight", 384, 128
    )


def test_phi3_may_come_with_its_tensors_apart() -> None:
    shapes = file_of("phi3-gqa64-window")
    for i in range(3):
        del shapes[f"blk.{i}.attn_qkv.weight"]
        for part, rows in (("attn_q", 256), ("attn_k", 128), ("attn_v", 128)):
            shapes[f"blk.{i}.{part}.weight"] = (rows, 256)
        shapes[f"blk.{i}.ffn_gate.weight"] = shapes[f"blk.{i}.ffn_up.weight"] = (160, 256)

    found = find("phi3-gqa64-window", shapes)

    assert found["blk.2.ffn_up.weight"].row_start == 0
    assert found["blk.2.attn_k.weight"].source == "blk.2.attn_k.weight"


def test_rope_divisors_are_no_tensors_of_the_graph() -> None:
    shapes = file_of("llama-mqa96-llama3") | {"rope_freqs.weight": (48,)}

    assert "rope_freqs.weight" not in find("llama-mqa96-llama3", shapes)


@pytest.mark.parametrize("name", sorted(file_of("qwen3-mha64-yarn")))
def test_a_missing_tensor_is_named(name: str) -> None:
    shapes = file_of("qwen3-mha64-yarn")
    del shapes[name]

    with pytest.raises(CorruptFileError, match=f"'{name}' is missing"):
        find("qwen3-mha64-yarn", shapes)


@pytest.mark.parametrize("name", sorted(file_of("qwen3-mha64-yarn")))
def test_a_tensor_of_the_wrong_shape_is_named(name: str) -> None:
    shapes = file_of("qwen3-mha64-yarn")
    shapes[name] = (*shapes[name][:-1], shapes[name][-1] + 1)

    with pytest.raises(CorruptFileError, match=f"'{name}' has shape"):
        find("qwen3-mha64-yarn", shapes)


def test_a_bias_of_one_block_alone_is_an_error() -> None:
    shapes = file_of("llama-gqa64-tied") | {"blk.1.attn_q.bias": (256,)}

    with pytest.raises(CorruptFileError, match=r"'blk\.0\.attn_q\.bias' is missing"):
        find("llama-gqa64-tied", shapes)


@pytest.mark.parametrize("name", ["blk.0.attn_sinks.weight", "blk.9.attn_q.weight", "cls.weight"])
def test_a_tensor_that_the_family_does_not_have_is_named(name: str) -> None:
    shapes = file_of("llama-gqa64-tied") | {name: (4,)}

    with pytest.raises(UnsupportedError, match=name):
        find("llama-gqa64-tied", shapes)


def test_layers_without_keys_of_their_own_may_have_some_in_the_file() -> None:
    model = tiny.BY_NAME["gemma4-mqa32-shared"]
    shapes = file_of(model.name)
    config = config_from_hf(model.config)
    assert "blk.3.attn_k.weight" not in shapes  # the first of three that read others'

    found = engine_tensors(model.arch, config, shapes | {"blk.3.attn_k.weight": (32, 160)})

    assert found == engine_tensors(model.arch, config, shapes)
    with pytest.raises(CorruptFileError, match=r"'blk\.2\.attn_k\.weight' is missing"):
        engine_tensors(
            model.arch, config, {n: s for n, s in shapes.items() if n != "blk.2.attn_k.weight"}
        )


def test_experts_gates_and_ups_may_be_one_tensor() -> None:
    """Of each expert the rows of its gate come before those of its up, as llama.cpp writes it."""
    model = tiny.BY_NAME["gemma4-gqa32-experts"]
    config = config_from_hf(model.config)
    shapes = file_of(model.name)
    for i in range(config.layers):
        gate = shapes.pop(f"blk.{i}.ffn_gate_exps.weight")
        del shapes[f"blk.{i}.ffn_up_exps.weight"]
        shapes[f"blk.{i}.ffn_gate_up_exps.weight"] = (gate[0], 2 * gate[1], gate[2])

    found = {t.name: t for t in engine_tensors(model.arch, config, shapes)}

    source, rows = "blk.1.ffn_gate_up_exps.weight", config.ff_width
    for expert in range(config.experts):
        gate_row = 2 * expert * rows
        for name, row in (("ffn_gate", gate_row), ("ffn_up", gate_row + rows)):
            name = f"blk.1.{name}.{expert}.weight"
            assert found[name] == EngineTensor(name, source, row, rows)
