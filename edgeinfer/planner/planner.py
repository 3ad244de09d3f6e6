"""Plans how a model will be run, or says why it cannot be and what would."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeinfer.arch import config_from_gguf, gguf_architecture
from edgeinfer.arch.config import ModelConfig
from edgeinfer.device.profile import DeviceProfile
from edgeinfer.errors import DoesNotFitError, UsageError
from edgeinfer.formats.ggml_types import BY_NAME
from edgeinfer.planner.costs import Tensor, kv_bytes, scratch_bytes, weights_bytes
from edgeinfer.planner.plan import MemoryPlan
from edgeinfer.planner.quant_name import quant_name
from edgeinfer.planner.resident import runtime_bytes
from edgeinfer.planner.sizes import format_bytes

DEFAULT_CONTEXT = 8192  # tokens; more only when asked for
MIN_CONTEXT = 512  # tokens; a default is never reduced below
DEFAULT_BATCH = 512  # tokens of a prefill step
DEFAULT_KV_TYPE = "f16"
KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0")
# Types of the cache to suggest: they cost hardly any accuracy.
_SMALLER_KV = ("f16", "q8_0")
# Types to suggest requantising to, and what their recipes keep the embedding in at most.
_SMALLER = (("q8_0", "q8_0"), ("q4_0", "q8_0"))


class ModelHeader(Protocol):
    """A GGUF file, or only its header."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Values by key."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Tensors by name."""


def plan_model(
    header: ModelHeader,
    *,
    device: DeviceProfile,
    memory: int | None = None,
    context: int | None = None,
    threads: int | None = None,
    batch_threads: int | None = None,
    kv_type_k: str = DEFAULT_KV_TYPE,
    kv_type_v: str = DEFAULT_KV_TYPE,
    backend: str = "native",
    batch: int = DEFAULT_BATCH,
    refuse: bool = True,
) -> MemoryPlan:
    """Plans a model for a device.

    Args:
        header: an open GGUF file or a parsed header; tensor data is not read.
        device: where it will run.
        memory: a budget in bytes, on top of what the device leaves.
        context: tokens; None takes the trained context up to 8192, or less if that fits.
        threads: None takes the device's.
        batch_threads: for steps of many tokens; None takes ``threads``, or the device's if those
            are None too.
        kv_type_k: of the cached keys, one of KV_TYPES.
        kv_type_v: of the cached values.
        backend: the way to run it.
        batch: tokens of a prefill step.
        refuse: raise if it does not fit, rather than return a plan that says so.

    Raises:
        DoesNotFitError: with a change that does fit, where there is one.
        UsageError: a parameter makes no sense.
        UnsupportedError: the architecture is not known.
        CorruptFileError: the header contradicts itself.
    """
    for kind in (kv_type_k, kv_type_v):
        if kind not in KV_TYPES:
            known = ", ".join(KV_TYPES)
            raise UsageError(f"KV type {kind!r} is not known", hint=f"use one of {known}")
    for name, value in (
        ("context", context),
        ("threads", threads),
        ("batch_threads", batch_threads),
        ("batch", batch),
    ):
        if value is not None and value < 1:
            raise UsageError(f"{name} is {value}, it must be at least 1")
    model = _Model.read(header)
    for kind in (kv_type_k, kv_type_v):
        if model.config.head_dim % BY_NAME[kind].block:
            raise UsageError(
                f"KV type {kind} needs heads of a multiple of {BY_NAME[kind].block} values, "
                f"this model's have {model.config.head_dim}",
                hint="use f16",
            )
    trained, most = model.config.context, _longest_context(model)
    if context is not None and context > most:
        raise UsageError(
            f"context {context} is more than the {most} tokens this model was trained for",
            hint=f"use -c {most} or less",
        )
    budget = device.memory_budget if memory is None else min(memory, device.memory_budget)

    def plan(tokens: int) -> MemoryPlan:
        return _plan(
            model,
            backend=backend,
            context=tokens,
            threads=threads or device.threads,
            batch_threads=batch_threads or threads or device.batch_threads,
            batch=min(batch, tokens),
            kv_types=(kv_type_k, kv_type_v),
            budget=budget,
            bandwidth=device.bandwidth,
        )

    if context is not None:
        chosen = plan(context)
    else:
        wanted = min(trained, DEFAULT_CONTEXT)
        plans = [plan(tokens) for tokens in _halvings(wanted)]
        chosen = next((p for p in plans if p.fits), plans[-1])
        notes = []
        if chosen.fits and chosen.context < wanted:
            notes.append(f"context reduced from {wanted} to {chosen.context} to fit the memory")
        elif wanted < trained:
            notes.append(f"context {wanted} of {trained}; ask for more with -c")
        chosen = replace(chosen, notes=tuple(notes))
    if refuse and not chosen.fits:
        raise _refusal(model, chosen)
    return chosen


def _refusal(model: _Model, plan: MemoryPlan) -> DoesNotFitError:
    suggest = _suggestion(model, plan)
    message = (
        f"{format_bytes(plan.total_bytes)} needed for {plan.context} tokens of context, "
        f"{format_bytes(plan.budget_bytes)} available"
    )
    if suggest is None:
        message += "; no context and no quant type of this model fits, take a smaller model"
    return DoesNotFitError(
        message, need_bytes=plan.total_bytes, have_bytes=plan.budget_bytes, suggest=suggest
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """What the planner reads of a header."""

    config: ModelConfig
    metadata: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    weights: int  # bytes

    @classmethod
    def read(cls, header: ModelHeader) -> _Model:
        config = config_from_gguf(_Shapes(header))
        arch = gguf_architecture(header.metadata)
        return cls(
            config=config,
            metadata=header.metadata,
            tensors=header.tensors,
            weights=weights_bytes(arch, config, header.tensors),
        )

    def requantised(self, kind: str, embedding: str) -> _Model:
        """The model with every matrix that is larger in a smaller type."""
        smaller = {
            name: _smaller(tensor, embedding if name in _LARGE_VOCABULARY else kind)
            for name, tensor in self.tensors.items()
        }
        arch = gguf_architecture(self.metadata)
        weights = weights_bytes(arch, self.config, smaller)
        return replace(self, tensors=smaller, weights=weights)


_LARGE_VOCABULARY = frozenset({"token_embd.weight", "output.weight"})


@dataclass(frozen=True, slots=True)
class _Retyped:
    """A tensor as if it were of another type."""

    type: str
    shape: tuple[int, ...]


class _Shapes:
    """A header without data: sizes do not depend on the values of RoPE divisors."""

    def __init__(self, header: ModelHeader) -> None:
        self.metadata = header.metadata
        self.tensors = header.tensors

    def data(self, name: str) -> NDArray[np.uint8]:
        return np.ones(self.tensors[name].shape, np.float32).view(np.uint8)


def _suggestion(model: _Model, refused: MemoryPlan) -> str | None:
    """Returns a change of the command that does fit, planned to be sure; None if there is none."""
    for change, plan in _changes(model, refused):
        if plan.fits:
            return f"{change} (needs {format_bytes(plan.total_bytes)})"
    return None


def _changes(model: _Model, refused: MemoryPlan) -> Iterator[tuple[str, MemoryPlan]]:
    """Yields changes, the least painful first, each with its plan."""
    types = refused.kv_type_k, refused.kv_type_v

    def plan(model: _Model, context: int, kv_types: tuple[str, str] = types) -> MemoryPlan:
        return _plan(
            model,
            backend=refused.backend,
            context=context,
            threads=refused.threads,
            batch_threads=refused.batch_threads,
            batch=min(refused.batch, context),
            kv_types=kv_types,
            budget=refused.budget_bytes,
            bandwidth=None,
        )

    for kind in _SMALLER_KV:
        if model.config.head_dim % BY_NAME[kind].block == 0:
            smaller_cache = plan(model, refused.context, (kind, kind))
            if smaller_cache.kv_bytes < refused.kv_bytes:
                yield f"use -ctk {kind} -ctv {kind}", smaller_cache
    for context in _powers_below(refused.context):
        yield f"use -c {context}", plan(model, context)
    for kind, embedding in _SMALLER:
        smaller = model.requantised(kind, embedding)
        if smaller.weights < model.weights:
            convert = f"requantise it: edgeinfer convert MODEL --to gguf -q {kind} -o SMALLER.gguf"
            yield convert, plan(smaller, refused.context)
            for context in _powers_below(refused.context):
                yield f"{convert}, and use -c {context}", plan(smaller, context)


def _plan(
    model: _Model,
    *,
    backend: str,
    context: int,
    threads: int,
    batch_threads: int | None,
    batch: int,
    kv_types: tuple[str, str],
    budget: int,
    bandwidth: float | None,
) -> MemoryPlan:
    return MemoryPlan(
        backend=backend,
        quant=quant_name(model.metadata, model.tensors),
        context=context,
        threads=threads,
        batch_threads=batch_threads,
        batch=batch,
        kv_type_k=kv_types[0],
        kv_type_v=kv_types[1],
        weights_bytes=model.weights,
        kv_bytes=kv_bytes(model.config, context, *kv_types),
        scratch_bytes=scratch_bytes(model.config, batch),
        runtime_bytes=runtime_bytes(model.metadata, model.config.vocab_size),
        budget_bytes=budget,
        # Decoding reads all weights once a token.
        decode_tokens_per_second=bandwidth / model.weights if bandwidth else None,
    )


def _longest_context(model: _Model) -> int:
    """The trained context, or what the file's RoPE scaling stretches it to."""
    prefix = f"{model.metadata['general.architecture']}.rope.scaling."
    if model.metadata.get(prefix + "type", "none") == "none":
        return model.config.context
    factor = float(model.metadata.get(prefix + "factor", 1.0))
    original = model.metadata.get(prefix + "original_context_length", model.config.context)
    return max(model.config.context, int(factor * original))


def _halvings(context: int) -> Iterator[int]:
    """Yields the context itself, then smaller powers of two down to the least useful one."""
    yield context
    yield from (power for power in _powers_below(context) if power >= MIN_CONTEXT)


def _powers_below(context: int) -> Iterator[int]:
    """Yields the powers of two below ``context``, the largest first, down to 128."""
    power = 1 << max(0, (context - 1).bit_length() - 1)
    while power >= 128:
        yield power
        power //= 2


def _smaller(tensor: Tensor, kind: str) -> Tensor:
    """The tensor in a type, if it is a matrix, its rows are whole blocks, and that is smaller."""
    old, new = BY_NAME[tensor.type], BY_NAME[kind]
    is_matrix = len(tensor.shape) > 1 and tensor.shape[-1] % new.block == 0
    if is_matrix and new.nbytes / new.block < old.nbytes / old.block:
        return _Retyped(kind, tensor.shape)
    return tensor
