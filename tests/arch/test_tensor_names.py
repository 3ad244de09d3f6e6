"""Tensor and key names are the vendor's: those of the ``gguf`` package."""

from __future__ import annotations

import gguf
import pytest

from edgeinfer.arch import architectures, numbers_from_hf, to_gguf
from edgeinfer.arch.config import Mixer
from edgeinfer.arch.from_gguf import KEYS, ROPE_TENSORS
from edgeinfer.arch.spec import BIAS_TENSORS, Architecture
from support import tiny

LAYERS = 2
# What the vendor's converter calls a checkpoint's tensors before it names them for GGUF.
RENAMED = {
    "gpt-oss": {
        "attn_sinks.weight": "self_attn.sinks.weight",
        **{
            f"ffn_{matrix}_exps.{kind}": f"mlp.experts.{matrix}_proj.{kind}"
            for matrix in ("gate", "up", "down")
            for kind in ("weight", "bias")
        },
    },
    "gemma4": {"layer_output_scale.weight": "layer_scalar.weight"},
    "gemma3n": {"altup_correct_scale.weight": "altup.correct_output_scale.weight"},
    "lfm2moe": {"exp_probs_b.bias": "feed_forward.expert_bias.bias"},
}
ids = pytest.mark.parametrize("arch", architectures(), ids=lambda arch: arch.hf_classes[0])


def vendor(arch: Architecture) -> gguf.MODEL_ARCH:
    return next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == arch.name)


def block_of(arch: Architecture, mixer: Mixer) -> dict[str, str]:
    """The tensors of a block, with experts where the family has such models."""
    return arch.block_tensors(bool(arch.experts), mixer)


@ids
def test_checkpoint_names_map_to_the_vendors_gguf_names(arch: Architecture) -> None:
    names = gguf.get_tensor_name_map(vendor(arch), LAYERS)
    matrices = arch.block_tensors()
    biases = {
        name: theirs
        for group in BIAS_TENSORS.values()
        for name, theirs in group.items()
        # In families whose matrices have the usual names.
        if matrices.get(name.replace(".bias", ".weight")) == theirs.replace(".bias", ".weight")
    }
    outside = arch.model_tensors(tied_output=False)
    ours = {theirs.replace(".{}", ""): name for name, theirs in outside.items()}
    for i in range(LAYERS):
        blocks = [biases | block_of(arch, mixer) for mixer in arch.mixers]
        for name, theirs in [item for block in blocks for item in block.items()]:
            # The vendor merges experts before it names them.
            merged = RENAMED.get(arch.name, {}).get(name, theirs.replace(".{}", ""))
            ours[arch.blocks.format(i) + merged] = f"blk.{i}.{name}"
        # The vendor renames it, or takes it apart, before it looks the name up.
        for theirs in (
            *("linear_attn.in_proj_qkvz.weight", "linear_attn.dt_bias"),
            *("mlp.experts.gate_up_proj", "mlp.experts.down_proj"),
            *("experts.gate_up_proj", "experts.down_proj"),
            *("router.scale", "router.per_expert_scale"),
        ):
            ours.pop(arch.blocks.format(i) + theirs, None)
    if vendor(arch) in (gguf.MODEL_ARCH.GEMMA2, gguf.MODEL_ARCH.LFM2MOE):
        del ours["lm_head.weight"]  # always tied
    if arch.recurrent:  # has no such biases
        ours = {k: v for k, v in ours.items() if not k.endswith("_proj.bias")}
    if vendor(arch) is gguf.MODEL_ARCH.PHI3:  # has neither these tensors nor such biases
        ours = {k: v for k, v in ours.items() if not k.endswith(".bias")}

    def named(name: str) -> str | None:
        return names.get_name(name, try_suffixes=(".weight", ".bias"))

    # LFM2's experts are merged under names without "model.".
    theirs = {name: named(name) or named(name.removeprefix("model.")) for name in ours}

    assert theirs == ours


@ids
def test_file_tensors_are_those_that_the_vendor_gives_the_family(arch: Architecture) -> None:
    known = {gguf.TENSOR_NAMES[tensor] for tensor in gguf.MODEL_TENSORS[vendor(arch)]}
    if gguf.MODEL_TENSOR.FFN_GATE_UP_EXP in gguf.MODEL_TENSORS[vendor(arch)]:
        known |= {"blk.{bid}.ffn_gate_exps", "blk.{bid}.ffn_up_exps"}  # llama.cpp reads either

    for mixer in arch.mixers:
        for name in block_of(arch, mixer):
            stem = name.removesuffix(".weight").removesuffix(".bias").removesuffix(".scale")
            assert "blk.{bid}." + stem in known


def test_rope_tensors_have_the_vendors_names() -> None:
    known = {
        gguf.TENSOR_NAMES[gguf.MODEL_TENSOR.ROPE_FREQS],
        gguf.TENSOR_NAMES[gguf.MODEL_TENSOR.ROPE_FACTORS_LONG],
        gguf.TENSOR_NAMES[gguf.MODEL_TENSOR.ROPE_FACTORS_SHORT],
    }

    assert {name.removesuffix(".weight") for name in ROPE_TENSORS.values()} == known


def vendor_keys() -> set[str]:
    keys = gguf.Keys
    groups = (keys.LLM, keys.Attention, keys.Rope, keys.ShortConv, keys.SSM, keys.Tokenizer)
    found = {value for group in groups for key, value in vars(group).items() if key.isupper()}
    newer = {"attention.recurrent_layers"}  # in llama.cpp, not yet in its package
    return {key.removeprefix("{arch}.") for key in found} | newer


def test_keys_have_the_vendors_names() -> None:
    assert set(KEYS.values()) <= vendor_keys()


@pytest.mark.parametrize("model", tiny.ALL, ids=str)
def test_written_keys_are_the_vendors(model: tiny.Tiny) -> None:
    arch, numbers = numbers_from_hf(model.config)

    keys = to_gguf.metadata(numbers, arch)

    assert keys.pop("general.architecture") == arch.name
    assert {key.removeprefix(f"{arch.name}.") for key in keys} <= vendor_keys()
