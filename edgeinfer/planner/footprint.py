"""What a model takes of a backend, and the seam by which each backend says it.

A backend that predicts has the two methods of ``Predictor``; of one that has not, nothing is
known before it is measured, and plans take the native engine's memory for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from edgeinfer.errors import UnsupportedError
from edgeinfer.formats.adapter import AdapterHeader
from edgeinfer.planner.outline import Outline


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How a model is to be run."""

    context: int  # tokens
    batch: int  # tokens a prefill step
    threads: int
    kv_type_k: str
    kv_type_v: str
    isas: tuple[str, ...] = ()  # kernel sets of the device, best first
    adapters: tuple[AdapterHeader, ...] = ()  # that texts are computed with, all at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Resident bytes at the peak, the context filled.

    ``reclaimable_bytes`` are pages of the model's file that are counted as the process's, but
    are never read again: the system takes them back when memory is short, at no cost.
    ``adapter_bytes`` are those of the weights that are adapters'.
    """

    weights_bytes: int
    kv_bytes: int
    scratch_bytes: int
    runtime_bytes: int
    reclaimable_bytes: int = 0
    adapter_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How much of a machine's ceilings a backend reaches with a model.

    Attributes:
        decode: share of the int8 multiply-adds that a step of one token reaches where the
            weights are in a near cache.
        prefill: the same of a step of many tokens.
        attention: the same of attention, in steps of one token.
        layer_seconds: what a layer costs besides, in a step of one token.
        read: bytes of weights that a step reads, of each byte in the file: other than 1 where
            the engine keeps them in another form.
    """

    decode: float
    prefill: float
    attention: float
    layer_seconds: float
    read: float = 1.0


@runtime_checkable
class Predictor(Protocol):
    """What a backend may offer besides ``Backend``: predictions from a header alone."""

    def footprint(self, model: Outline, setting: Setting) -> Footprint:
        """What the model will take, interpreter and libraries included."""

    def pace(self, model: Outline) -> Pace | None:
        """How near the machine's ceilings it comes; None if that is not known."""


def refuse_adapters(setting: Setting) -> None:
    """What a backend without adapters says to them.

    Raises:
        UnsupportedError: there are some.
    """
    if setting.adapters:
        raise UnsupportedError(
            "this backend has no adapters",
            hint="native and llamacpp have; or edgeinfer convert MODEL --merge-lora ADAPTER",
        )
