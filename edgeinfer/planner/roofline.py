"""Predicts tokens per second from what a machine can do at most and what a model asks of it.

A step of one token reads every weight and the cache once, and multiplies each. Where the two
take about as long they get in each other's way, so the time is not the longer of the two but
the root of the sum of their squares, which held on every model measured in both states of a
machine whose memory changes its speed by a factor of two. A step of many tokens is bound by
multiplication. benchmarks/prediction.py prints predicted beside measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgeinfer.device.ceilings import Ceilings
from edgeinfer.device.profile import DeviceProfile
from edgeinfer.planner.footprint import Pace
from edgeinfer.planner.outline import EMBEDDING, OUTPUT, Outline, tensor_bytes

PROMPT = 512  # tokens that the speed of reading is predicted for

# Multiply-adds of a core a second, by its best kernel set, and bytes a second of a machine,
# where nothing was measured: what a slow one has.
_CAUTIOUS_MACS = {
    "scalar": 1e9,
    "neon": 8e9,
    "neon_dotprod": 20e9,
    "neon_i8mm": 40e9,
    "avx2": 30e9,
    "avxvnni": 60e9,
    "avx512": 120e9,
}
_CAUTIOUS_STREAM = 8e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a machine can do, and how that is known."""

    stream: float  # bytes a second
    macs: float  # 8-bit multiply-adds a second, all compute threads together
    source: str  # "measured", or a word about the guess


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Tokens per second."""

    prefill: float  # a prompt of up to 512 tokens, nothing before it
    decode: float  # the first tokens
    decode_full: float  # with the context nearly full


def limits_of(device: DeviceProfile, threads: int, measured: Ceilings | None = None) -> Limits:
    """The ceilings of a device; cautious ones where none were measured."""
    if measured is not None:
        share = min(1.0, threads / measured.threads)
        return Limits(
            stream=measured.stream_bytes_per_second,
            macs=measured.int8_macs_per_second * share,
            source="measured",
        )
    best = device.isas[0] if device.isas else "scalar"
    macs = threads * _CAUTIOUS_MACS.get(best, _CAUTIOUS_MACS["scalar"])
    if device.bandwidth is not None:
        return Limits(stream=device.bandwidth, macs=macs, source="known bandwidth")
    return Limits(stream=_CAUTIOUS_STREAM, macs=macs, source="a cautious guess")


def forecast(model: Outline, pace: Pace, limits: Limits, context: int, kv_bytes: int) -> Forecast:
    """Predicts the speeds of a model.

    Args:
        model: what is run.
        pace: how near the ceilings the backend comes.
        limits: the ceilings.
        context: tokens it can hold.
        kv_bytes: of the cache when it is full.
    """
    layers, output, nbytes = work_of(model)
    overhead = pace.layer_seconds * model.config.layers

    def decode(depth: int) -> float:
        attention = attention_macs(model, depth)
        read = (nbytes + kv_bytes * depth / context) / limits.stream
        multiply = (layers + output) / pace.decode + attention / pace.attention
        return 1 / (math.hypot(read, multiply / limits.macs) + overhead)

    prompt = min(PROMPT, context)
    multiply = prompt * layers + output + attention_macs(model, prompt) * prompt / 2
    seconds = math.hypot(nbytes / limits.stream, multiply / pace.prefill / limits.macs) + overhead
    return Forecast(prefill=prompt / seconds, decode=decode(0), decode_full=decode(context))


def attention_macs(model: Outline, depth: int) -> int:
    """Multiply-adds of one token's attention to ``depth`` tokens, windows respected."""
    config = model.config
    positions = sum(min(depth, window or depth) for window in config.layer_window)
    return 2 * positions * config.heads * config.head_dim


def work_of(model: Outline) -> tuple[int, int, int]:
    """Multiply-adds of a token in the layers, of a row of logits, and bytes of weights read."""
    output = OUTPUT if OUTPUT in model.tensors else EMBEDDING
    layers = nbytes = 0
    for name, tensor in model.tensors.items():
        if name in (EMBEDDING, OUTPUT) and name != output:
            continue
        nbytes += tensor_bytes(tensor)
        if len(tensor.shape) > 1 and name != output:
            layers += math.prod(tensor.shape)
    return layers, math.prod(model.tensors[output].shape), nbytes + model.surplus_bytes
