"""Plans how a model will be run, or says why it cannot be and what would."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from edgeinfer.arch import lora
from edgeinfer.device.profile import DeviceProfile
from edgeinfer.errors import DoesNotFitError, UsageError, known_names
from edgeinfer.formats.adapter import AdapterHeader
from edgeinfer.formats.ggml_types import BY_NAME
from edgeinfer.planner import costs
from edgeinfer.planner.footprint import Pace, Predictor, Setting
from edgeinfer.planner.outline import EMBEDDING, OUTPUT, ModelHeader, Outline, Tensor
from edgeinfer.planner.paces import native_pace
from edgeinfer.planner.plan import MemoryPlan
from edgeinfer.planner.roofline import forecast, limits_of
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


class Native:
    """The native engine's predictions; of memory, also those of a backend that makes none."""

    footprint = staticmethod(costs.footprint)
    pace: Callable[[Outline], Pace] = staticmethod(native_pace)


_NATIVE = Native()


def plan_model(
    header: ModelHeader | Outline,
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
    predictor: Predictor | None = _NATIVE,
    adapters: Sequence[AdapterHeader] = (),
    refuse: bool = True,
) -> MemoryPlan:
    """Plans a model for a device.

    Args:
        header: an open GGUF file, a parsed header or an outline; tensor data is not read.
        device: where it will run; with its ceilings, speeds are predicted as well.
        memory: a budget in bytes, on top of what the device leaves.
        context: tokens; None takes the trained context up to 8192, or less if that fits.
        threads: None takes the device's.
        batch_threads: for steps of many tokens; None takes ``threads``, or the device's if those
            are None too.
        kv_type_k: of the cached keys, one of KV_TYPES; of no interest where the files fix it.
        kv_type_v: of the cached values.
        backend: the way to run it.
        batch: tokens of a prefill step.
        predictor: what the backend says it takes; None: memory as the native one, no speed.
        adapters: what texts are computed with, all of them.
        refuse: raise if it does not fit, rather than return a plan that says so.

    Raises:
        DoesNotFitError: with a change that does fit, where there is one.
        UsageError: a parameter makes no sense.
        UnsupportedError: the architecture is not known, an adapter is for another, or the backend
            has none.
        CorruptFileError: the header contradicts itself, or an adapter is of another shape.
    """
    for name, value in (
        ("context", context),
        ("threads", threads),
        ("batch_threads", batch_threads),
        ("batch", batch),
    ):
        if value is not None and value < 1:
            raise UsageError(f"{name} is {value}, it must be at least 1")
    model = header if isinstance(header, Outline) else Outline.of_gguf(header)
    for adapter in adapters:
        lora.require_family(model.config, adapter.architecture, adapter.path)
        for name, change in adapter.shapes.items():
            lora.check(model.arch, model.config, name, change.shape)
    planner = _Planner(predictor, device, backend, tuple(adapters))
    kv_types = _kv_types(model, kv_type_k, kv_type_v)
    trained, most = model.config.context, model.longest_context
    if context is not None and context > most:
        raise UsageError(
            f"context {context} is more than the {most} tokens this model was trained for",
            hint=f"use -c {most} or less",
        )
    budget = device.memory_budget if memory is None else min(memory, device.memory_budget)

    def plan(tokens: int) -> MemoryPlan:
        return planner.plan(
            model,
            context=tokens,
            threads=threads or device.threads,
            batch_threads=batch_threads or threads or device.batch_threads,
            batch=_batch(model, batch, tokens),
            kv_types=kv_types,
            budget=budget,
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
        raise _refusal(planner, model, chosen)
    return chosen


def _kv_types(model: Outline, keys: str, values: str) -> tuple[str, str]:
    """The types of the cache: the files', or those asked for."""
    if model.kv_type:
        return model.kv_type, model.kv_type
    for kind in (keys, values):
        if kind not in KV_TYPES:
            raise UsageError(f"KV type {kind!r} is not known", hint=known_names(kind, KV_TYPES))
        if model.config.head_dim % BY_NAME[kind].block:
            raise UsageError(
                f"KV type {kind} needs heads of a multiple of {BY_NAME[kind].block} values, "
                f"this model's have {model.config.head_dim}",
                hint="use f16",
            )
    return keys, values


def _batch(model: Outline, batch: int, context: int) -> int:
    """Tokens of a step: no more than a text has, or no fewer where it is read as a whole."""
    return min(batch, context) if model.config.causal else max(batch, context)


def _refusal(planner: _Planner, model: Outline, plan: MemoryPlan) -> DoesNotFitError:
    suggest = _suggestion(planner, model, plan)
    message = (
        f"{format_bytes(plan.needed_bytes)} needed for {plan.context} tokens of context, "
        f"{format_bytes(plan.budget_bytes)} available"
    )
    if suggest is None:
        message += "; no context and no quant type of this model fits, take a smaller model"
    return DoesNotFitError(
        message, need_bytes=plan.needed_bytes, have_bytes=plan.budget_bytes, suggest=suggest
    )


def requantised(model: Outline, kind: str, embedding: str) -> Outline:
    """The model with every matrix that is larger in a smaller type."""
    types = {
        name: _smaller(tensor, embedding if name in (EMBEDDING, OUTPUT) else kind)
        for name, tensor in model.tensors.items()
    }
    return model.retyped(kind, types)


def _suggestion(planner: _Planner, model: Outline, refused: MemoryPlan) -> str | None:
    """Returns a change of the command that does fit, planned to be sure; None if there is none."""
    for change, plan in _changes(planner, model, refused):
        if plan.fits:
            return f"{change} (needs {format_bytes(plan.needed_bytes)})"
    return None


def _changes(
    planner: _Planner, model: Outline, refused: MemoryPlan
) -> Iterator[tuple[str, MemoryPlan]]:
    """Yields changes, the least painful first, each with its plan."""
    types = refused.kv_type_k, refused.kv_type_v

    def plan(
        model: Outline, context: int, kv_types: tuple[str, str] = types, by: _Planner = planner
    ) -> MemoryPlan:
        return by.plan(
            model,
            context=context,
            threads=refused.threads,
            batch_threads=refused.batch_threads,
            batch=_batch(model, min(refused.batch, DEFAULT_BATCH), context),
            kv_types=kv_types,
            budget=refused.budget_bytes,
        )

    for kind in () if model.kv_type else _SMALLER_KV:
        if model.config.head_dim % BY_NAME[kind].block == 0:
            smaller_cache = plan(model, refused.context, (kind, kind))
            if smaller_cache.kv_bytes < refused.kv_bytes:
                yield f"use -ctk {kind} -ctv {kind}", smaller_cache
    for context in _powers_below(refused.context):
        yield f"use -c {context}", plan(model, context)
    if planner.adapters:
        merge = "merge the adapter: edgeinfer convert MODEL --merge-lora ADAPTER"
        yield merge, plan(model, refused.context, by=replace(planner, adapters=()))
    for kind, embedding in () if model.kv_type else _SMALLER:
        smaller = requantised(model, kind, embedding)
        if smaller.file_bytes < model.file_bytes:
            convert = f"requantise it: edgeinfer convert MODEL --to gguf -q {kind} -o SMALLER.gguf"
            yield convert, plan(smaller, refused.context)
            for context in _powers_below(refused.context):
                yield f"{convert}, and use -c {context}", plan(smaller, context)


@dataclass(frozen=True, slots=True)
class _Planner:
    """What plans of one backend on one device have in common."""

    predictor: Predictor | None
    device: DeviceProfile
    backend: str
    adapters: tuple[AdapterHeader, ...] = ()

    def plan(
        self,
        model: Outline,
        *,
        context: int,
        threads: int,
        batch_threads: int | None,
        batch: int,
        kv_types: tuple[str, str],
        budget: int,
    ) -> MemoryPlan:
        device = self.device
        takes = (self.predictor or _NATIVE).footprint(
            model,
            Setting(
                context=context,
                batch=batch,
                threads=threads,
                kv_type_k=kv_types[0],
                kv_type_v=kv_types[1],
                isas=device.isas,
                adapters=self.adapters,
            ),
        )
        speed = None
        pace = self.predictor.pace(model) if self.predictor is not None else None
        if device.ceilings is not None and pace is not None:
            limits = limits_of(device.ceilings, threads, batch_threads or threads)
            speed = forecast(
                model, pace, limits, context, takes.kv_bytes, adapter_bytes=takes.adapter_bytes
            )
        writes = model.config.causal
        return MemoryPlan(
            backend=self.backend,
            quant=model.quant,
            context=context,
            threads=threads,
            batch_threads=batch_threads,
            batch=batch,
            kv_type_k=kv_types[0],
            kv_type_v=kv_types[1],
            weights_bytes=takes.weights_bytes,
            kv_bytes=takes.kv_bytes,
            scratch_bytes=takes.scratch_bytes,
            runtime_bytes=takes.runtime_bytes,
            reclaimable_bytes=takes.reclaimable_bytes,
            adapter_bytes=takes.adapter_bytes,
            budget_bytes=budget,
            prefill_tokens_per_second=speed.prefill if speed else None,
            decode_tokens_per_second=speed.decode if speed and writes else None,
            decode_full_tokens_per_second=speed.decode_full if speed and writes else None,
        )


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


def _smaller(tensor: Tensor, kind: str) -> str:
    """The type, if the tensor is a matrix of whole blocks and that is smaller; else its own."""
    old, new = BY_NAME[tensor.type], BY_NAME[kind]
    is_matrix = len(tensor.shape) > 1 and tensor.shape[-1] % new.block == 0
    return kind if is_matrix and new.nbytes / new.block < old.nbytes / old.block else tensor.type
