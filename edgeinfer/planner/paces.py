"""How near a machine's ceilings the engines come, by quant type: measured, as data.

Shares of the int8 multiply-adds of all threads, taken beside the ceilings on x86-64 with
AVX-512 (benchmarks/prediction.py). With other kernels they are the best guess there is; of two
engines whose kernels differ, they do not say there which is faster.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from edgeinfer.planner.footprint import Pace
from edgeinfer.planner.outline import EMBEDDING, OUTPUT, Outline, tensor_bytes
from edgeinfer.quant import all_types

MEASURED_WITH = frozenset({"avx512"})  # kernel sets

Shares = Mapping[str, tuple[float, float]]  # quant type -> (steps of one token, of many)

NATIVE: Shares = {
    "q4_0": (0.24, 0.60),
    "q4_1": (0.24, 0.48),
    "q4_k": (0.21, 0.58),
    "q5_k": (0.18, 0.55),
    "q6_k": (0.14, 0.53),
    "q8_0": (0.16, 0.60),
    "iq3_s": (0.26, 0.64),
    "iq3_xxs": (0.26, 0.64),
    "iq2_s": (0.22, 0.59),
    "iq2_xs": (0.22, 0.59),
    "iq2_xxs": (0.28, 0.63),
    "iq1_m": (0.27, 0.60),
    "iq1_s": (0.36, 0.65),
    "tq2_0": (0.50, 0.66),
    "tq1_0": (0.50, 0.66),
    "f16": (0.06, 0.10),
    "bf16": (0.06, 0.10),
    "f32": (0.04, 0.05),
}
NATIVE_OTHER = (0.16, 0.45)
NATIVE_ATTENTION = 0.12
NATIVE_LAYER_SECONDS = 9e-6

LLAMACPP: Shares = {
    "q4_0": (0.125, 0.26),
    "q4_k": (0.125, 0.21),
    "q5_k": (0.06, 0.25),
    "q6_k": (0.065, 0.33),
    "q8_0": (0.063, 0.14),
    "q4_1": (0.04, 0.06),
    "iq3_s": (0.017, 0.32),
    "iq3_xxs": (0.028, 0.33),
    "iq2_s": (0.034, 0.34),
    "iq2_xs": (0.027, 0.30),
    "iq2_xxs": (0.025, 0.38),
    "iq1_m": (0.041, 0.35),
    "iq1_s": (0.036, 0.37),
    "tq2_0": (0.088, 0.14),
    "tq1_0": (0.047, 0.072),
    "f16": (0.04, 0.06),
    "bf16": (0.04, 0.06),
    "f32": (0.03, 0.04),
}
LLAMACPP_OTHER = (0.05, 0.12)
LLAMACPP_ATTENTION = 0.011
LLAMACPP_LAYER_SECONDS = 60e-6


def native_pace(model: Outline) -> Pace:
    """The native engine's."""
    pace = _pace(model, NATIVE, NATIVE_OTHER, NATIVE_ATTENTION, NATIVE_LAYER_SECONDS)
    packed = {t.name: t.packed_bytes / t.block_bytes for t in all_types()}
    stored = read = 0.0
    for name, tensor in model.tensors.items():
        if name != EMBEDDING or OUTPUT not in model.tensors:
            size = model.share_used(name) * tensor_bytes(tensor)
            stored, read = stored + size, read + size * packed.get(tensor.type, 1.0)
    return replace(pace, read=read / stored if stored else 1.0)


def llamacpp_pace(model: Outline) -> Pace:
    """llama.cpp's."""
    return _pace(model, LLAMACPP, LLAMACPP_OTHER, LLAMACPP_ATTENTION, LLAMACPP_LAYER_SECONDS)


def _pace(
    model: Outline,
    shares: Shares,
    other: tuple[float, float],
    attention: float,
    layer_seconds: float,
) -> Pace:
    """Mixes the shares of a model's types: times add up, so it is a harmonic mean."""
    total, single, many = 0.0, 0.0, 0.0
    for name, tensor in model.tensors.items():
        if len(tensor.shape) < 2 or (
            name == EMBEDDING and (OUTPUT in model.tensors or not model.config.causal)
        ):
            continue
        macs = model.share_used(name) * math.prod(tensor.shape)
        decode, prefill = shares.get(tensor.type, other)
        total, single, many = total + macs, single + macs / decode, many + macs / prefill
    return Pace(
        decode=total / single if total else other[0],
        prefill=total / many if total else other[1],
        attention=attention,
        layer_seconds=layer_seconds,
    )
