"""Predicted speeds: bound by memory, by arithmetic, and by what a machine shares between both."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgeinfer.planner import costs, paces
from edgeinfer.planner.footprint import Pace
from edgeinfer.planner.outline import Outline
from edgeinfer.planner.roofline import Limits, attention_macs, forecast, work_of

PACE = Pace(decode=1.0, prefill=0.5, attention=1.0, layer_seconds=0.0)
FAST = 1e30


def test_weights_are_read_once_a_token(large):
    model = Outline.of_gguf(large)
    limits = Limits(stream=50e9, macs=FAST, batch_macs=FAST)

    decode = forecast(model, PACE, limits, 4096, 0).decode

    # An untied embedding is only looked up.
    read = model.file_bytes - 32000 * 4096 * 2
    assert decode == pytest.approx(50e9 / read)


def test_the_cache_is_read_as_far_as_it_is_full(large):
    model = Outline.of_gguf(large)
    limits = Limits(stream=50e9, macs=FAST, batch_macs=FAST)
    kv = 2 << 30

    found = forecast(model, PACE, limits, 4096, kv)

    assert 1 / found.decode_full - 1 / found.decode == pytest.approx(kv / 50e9)


def test_prompts_are_bound_by_arithmetic(large):
    model = Outline.of_gguf(large)
    limits = Limits(stream=FAST, macs=1e9, batch_macs=1e12)

    prefill = forecast(model, PACE, limits, 4096, 0).prefill

    layers, output, _ = work_of(model)
    macs = 512 * layers + output + 512 * attention_macs(model, 512) / 2
    assert prefill == pytest.approx(512 / (macs / 0.5 / 1e12))
    assert layers + output == 6_738_415_616 - 32000 * 4096 - (2 * 32 + 1) * 4096


def test_where_both_take_as_long_they_share(large):
    model = Outline.of_gguf(large)
    layers, output, nbytes = work_of(model)
    limits = Limits(stream=nbytes / 0.1, macs=(layers + output) / 0.1, batch_macs=FAST)

    assert 1 / forecast(model, PACE, limits, 4096, 0).decode == pytest.approx(0.1 * 2**0.5)


def test_layers_cost_besides(large):
    model = Outline.of_gguf(large)
    limits = Limits(stream=FAST, macs=FAST, batch_macs=FAST)
    pace = Pace(decode=1.0, prefill=1.0, attention=1.0, layer_seconds=1e-3)

    assert 1 / forecast(model, pace, limits, 4096, 0).decode == pytest.approx(32e-3)


def test_windowed_layers_attend_to_no_more_than_their_window(header):
    model = Outline.of_gguf(header(layers=2, heads=4, head_dim=64))
    windowed = replace(model, config=replace(model.config, layer_window=(0, 100)))

    assert attention_macs(model, 1000) == 2 * (1000 + 1000) * 4 * 64
    assert attention_macs(windowed, 1000) == 2 * (1000 + 100) * 4 * 64


def test_what_is_repacked_is_read_as_it_lies_in_memory(header):
    model = Outline.of_gguf(header(kind="iq2_xxs", embedding="iq2_xxs", tied=True))
    pace = paces.native_pace(model)
    packed = costs.weights_bytes(model.arch, model.config, model.tensors)

    assert model.file_bytes * pace.read == pytest.approx(packed, rel=1e-2)  # rows that pad
    assert pace.read > 1.5
    assert paces.llamacpp_pace(model).read == 1
    assert paces.native_pace(Outline.of_gguf(header(kind="q4_k"))).read == 1
