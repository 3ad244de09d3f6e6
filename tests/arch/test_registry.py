"""Families are found by the names that files carry."""

from __future__ import annotations

import gguf
import pytest

from edgeinfer.arch import architectures, by_gguf_name, by_hf_class
from edgeinfer.arch.spec import Architecture
from edgeinfer.arch.transforms import TRANSFORMS
from edgeinfer.errors import UnsupportedError
from support import tiny

ids = pytest.mark.parametrize("arch", architectures(), ids=lambda arch: arch.hf_classes[0])


@ids
def test_a_family_is_found_by_its_class_and_its_gguf_name(arch: Architecture) -> None:
    for cls in arch.hf_classes:
        assert by_hf_class(cls) is arch

    assert by_gguf_name(arch.name).name == arch.name


@ids
def test_a_family_has_the_vendors_name(arch: Architecture) -> None:
    assert arch.name in gguf.MODEL_ARCH_NAMES.values()


@ids
def test_a_family_has_a_tiny_model_to_test_it(arch: Architecture) -> None:
    assert any(model.arch is arch for model in tiny.ALL)


@ids
def test_a_family_transforms_only_tensors_it_has(arch: Architecture) -> None:
    biases = {"attn_q.bias", "attn_k.bias"}  # which a switch in config.json brings

    experts = bool(arch.experts)
    blocks = [arch.block_tensors(experts, mixer=mixer) for mixer in arch.mixers]

    outside = arch.model_tensors(tied_output=False)
    assert set(arch.transforms) <= {*outside, *biases}.union(*blocks)
    assert set(arch.transforms.values()) <= set(TRANSFORMS)


def test_an_unknown_gguf_architecture_is_named_with_the_known_ones() -> None:
    with pytest.raises(UnsupportedError, match="'falcon'") as caught:
        by_gguf_name("falcon")

    assert caught.value.exit_code == 5
    assert "llama" in (caught.value.hint or "")


def test_an_unknown_model_class_is_named_with_the_known_ones() -> None:
    with pytest.raises(UnsupportedError, match="'FalconForCausalLM'") as caught:
        by_hf_class("FalconForCausalLM")

    assert "LlamaForCausalLM" in (caught.value.hint or "")
