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

from edgeinfer.arch.config import Mixer
from edgeinfer.device.ceilings import Ceilings, CeilingsByThreads
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
GUESSED = "a cautious guess; edgeinfer device --measure takes the real ones"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a machine can do."""

    stream: float  # bytes a second, read by the threads that generate
    macs: float  # 8-bit multiply-adds a second of the same threads
    batch_macs: float  # of the threads that read prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Tokens per second."""

    prefill: float  # a prompt of up to 512 tokens, nothing before it
    decode: float  # the first tokens
    decode_full: float  # with the context nearly full


def limits_of(ceilings: CeilingsByThreads, threads: int, batch_threads: int) -> Limits:
    """The ceilings of the threads that generate and of those that read prompts."""
    single = ceilings.at(threads)
    return Limits(
        stream=single.stream_bytes_per_second,
        macs=single.int8_macs_per_second,
        batch_macs=ceilings.at(batch_threads).int8_macs_per_second,
    )


def cautious_ceilings(device: DeviceProfile) -> CeilingsByThreads:
    """What a slow machine of the device's kind can do, where nothing better is known."""
    best = device.isas[0] if device.isas else "scalar"
    macs = _CAUTIOUS_MACS.get(best, _CAUTIOUS_MACS["scalar"])
    most = max(1, device.threads, device.batch_threads or 1)
    points = tuple(
        Ceilings(threads=n, stream_bytes_per_second=_CAUTIOUS_STREAM, int8_macs_per_second=n * macs)
        for n in sorted({1, most})
    )
    return CeilingsByThreads(points=points, source=GUESSED)


def forecast(
    model: Outline,
    pace: Pace,
    limits: Limits,
    context: int,
    kv_bytes: int,
    *,
    adapter_bytes: int = 0,
) -> Forecast:
    """Predicts the speeds of a model.

    Args:
        model: what is run.
        pace: how near the ceilings the backend comes.
        limits: the ceilings.
        context: tokens it can hold.
        kv_bytes: of the cache when it is full.
        adapter_bytes: of adapters, which a step reads besides.
    """
    layers, output, stored = work_of(model)
    nbytes = stored * pace.read + adapter_bytes
    overhead = pace.layer_seconds * model.config.layers

    def decode(depth: int) -> float:
        attention = attention_macs(model, depth)
        read = (nbytes + kv_bytes * depth / context) / limits.stream
        multiply = (layers + output) / pace.decode + attention / pace.attention
        return 1 / (math.hypot(read, multiply / limits.macs) + overhead)

    prompt = min(PROMPT, context)
    multiply = prompt * layers + output + attention_macs(model, prompt) * prompt / 2
    seconds = (
        math.hypot(nbytes / limits.stream, multiply / pace.prefill / limits.batch_macs) + overhead
    )
    return Forecast(prefill=prompt / seconds, decode=decode(0), decode_full=decode(context))


def attention_macs(model: Outline, depth: int) -> int:
    """Multiply-adds of one token's attention to ``depth`` tokens, windows respected."""
    config = model.config
    values = sum(
        min(depth, window or depth) * config.at(i).head_dim
        for i, (window, mixer) in enumerate(zip(config.layer_window, config.mixers, strict=True))
        if mixer is Mixer.ATTENTION
    )
    return 2 * values * config.heads


def work_of(model: Outline) -> tuple[float, int, float]:
    """Multiply-adds of a token in the layers, of a row of logits, and bytes of weights read."""
    output = OUTPUT if OUTPUT in model.tensors or not model.config.causal else EMBEDDING
    layers = nbytes = 0.0
    for name, tensor in model.tensors.items():
        if name in (EMBEDDING, OUTPUT) and name != output:
            continue
        share = model.share_used(name)
        nbytes += share * tensor_bytes(tensor)
        if len(tensor.shape) > 1 and name != output:
            layers += share * math.prod(tensor.shape)
    rows = math.prod(model.tensors[output].shape) if output in model.tensors else 0
    return layers, rows, nbytes + model.surplus_bytes
