"""Errors say what was meant perhaps, wherever a name is asked for."""

from __future__ import annotations

import pytest

from edgeinfer import quant
from edgeinfer.backends import registry
from edgeinfer.backends.mlc.targets import get_target
from edgeinfer.device import known
from edgeinfer.device.detect import detect
from edgeinfer.errors import EdgeInferError, known_names
from edgeinfer.formats.mlc.quants import get_quant
from edgeinfer.quant.recipes import get_recipe
from edgeinfer.runtime.conversion import convert
from edgeinfer_converters.onnx.forms import get_recipe as get_onnx_recipe

MISSPELT = [
    (get_recipe, "q4km", "q4_k_m"),
    (get_recipe, "Q4_K_N", "q4_k_m"),
    (quant.get, "q6k", "q6_k"),
    (get_quant, "q4f16", "q4f16_1"),
    (get_target, "x86", "x86_64"),
    (get_onnx_recipe, "itn4", "int4"),
    (known.load, "rpi5-8", "rpi5-8gb"),
    (lambda name: registry.named(name, "gguf", detect()), "natve", "native"),
    (lambda name: convert("model", to=name, output="out"), "oonx", "onnx"),
]


@pytest.mark.parametrize(("ask", "name", "meant"), MISSPELT, ids=[m[1] for m in MISSPELT])
def test_a_misspelt_name_is_recognised(ask, name, meant):
    with pytest.raises(EdgeInferError) as raised:
        ask(name)

    near, _, listed = raised.value.hint.partition("? ")
    assert meant in near.removeprefix("did you mean ").split(" or ")
    assert meant in listed.split(": ")[1].split(", ")


def test_what_is_near_nothing_is_answered_with_all_names():
    assert known_names("zebra", ["q4_0", "q8_0"]) == "known: q4_0, q8_0"
    assert known_names("zebra", [], "installed") == "installed: none"
