"""Model: a loaded model, the public face of everything below it."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from edgeinfer.backends.adapters import require_adaptable
from edgeinfer.backends.base import (
    Adaptable,
    AdapterUse,
    BatchInvariant,
    Engine,
    Slice,
    Writer,
)
from edgeinfer.backends.checks import require_causal
from edgeinfer.errors import (
    ClosedError,
    ContextFullError,
    DoesNotFitError,
    UnsupportedError,
    UsageError,
)
from edgeinfer.formats.adapter import read_header
from edgeinfer.planner.plan import MemoryPlan
from edgeinfer.planner.sizes import format_bytes
from edgeinfer.runtime.drafters import Drafter, DraftModel, PromptLookup
from edgeinfer.runtime.embedding import tokens_of, vectors_of
from edgeinfer.runtime.generator import Task, collect, generate
from edgeinfer.runtime.running import Listed
from edgeinfer.runtime.sampler import check_params
from edgeinfer.runtime.scheduler import Scheduler
from edgeinfer.runtime.sequence import Sequence as TextSequence
from edgeinfer.runtime.session import Session
from edgeinfer.runtime.speeds import Expectation
from edgeinfer.runtime.watch import Watch
from edgeinfer.runtime.written import write
from edgeinfer.types import Completion, Message, SamplingParams, TokenEvent

if TYPE_CHECKING:
    from edgeinfer.tokenizer import ChatTemplate, Tokenizer

_FIELDS = frozenset(field.name for field in fields(SamplingParams))
_TASK_OPTIONS = frozenset({"on_prefill", "is_cancelled"})
_SPECULATIONS = ("auto", "off", "lookup", "draft")
_OWN_OPTIONS = frozenset({"speculate", "overflow", "adapters"})
_OVERFLOWS = ("stop", "shift")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a Model is made of."""

    engine: Engine
    tokenizer: Tokenizer
    plan: MemoryPlan
    template: ChatTemplate | None = None  # None: the model has no chat template
    sampling: SamplingParams = field(default_factory=SamplingParams)  # unless asked otherwise
    system: str | None = None  # the system message the command line uses
    reference: str = ""
    path: str = ""
    draft: Model | None = None
    listed: Listed | None = None  # in the list of ``edgeinfer ps``
    expectation: Expectation | None = None  # of its speed


class Model:
    r"""A loaded model. Safe to use from several threads; made by ``edgeinfer.load``.

    Sampling options of ``generate`` and ``chat`` are the fields of ``SamplingParams`` by
    name (``temperature=0, max_tokens=64, stop=["\n"]``); what is not given is as the
    model's makers recommend (``model.sampling``).

    Attributes:
        backend: the name of what runs it.
        plan: the MemoryPlan it was loaded by.
        tokenizer: text to tokens and back.
        template: the chat template, or None.
        sampling: the sampling used unless asked otherwise.
        system: a system message that suits the model, which the command line uses; no
            method here adds it by itself.
        reference: what it was loaded as.
        path: the file.
        draft: a smaller model of the same vocabulary that guesses ahead, or None.
        adapters: what sequences are computed with unless asked otherwise: numbers that
            ``add_adapter`` gave, each with a scale.
    """

    def __init__(self, parts: Parts) -> None:
        self.plan = parts.plan
        self.backend = parts.plan.backend
        self.tokenizer = parts.tokenizer
        self.template = parts.template
        self.sampling = parts.sampling
        self.system = parts.system
        self.reference = parts.reference
        self.path = parts.path
        self.draft = parts.draft
        self.adapters: tuple[AdapterUse, ...] = ()
        self._added: dict[int, int] = {}  # adapters beyond the plan, and their bytes
        self._engine: Engine | None = parts.engine
        self._scheduler = Scheduler(parts.engine, parts.plan.batch)
        self._watch = Watch(parts.listed, expectation=parts.expectation)
        if parts.listed is not None:
            weakref.finalize(self, parts.listed.remove)
        self._process = os.getpid()
        # One sequence outlives its call, so that a prompt which goes on from the last one
        # (a conversation) reads only what is new.
        self._idle: TextSequence | None = None
        self._leases = threading.Lock()

    # ---- text ----------------------------------------------------------------------------

    @overload
    def generate(
        self, prompt: str | Sequence[int], *, stream: Literal[False] = False, **options: Any
    ) -> Completion: ...
    @overload
    def generate(
        self, prompt: str | Sequence[int], *, stream: Literal[True], **options: Any
    ) -> Iterator[TokenEvent]: ...
    def generate(
        self, prompt: str | Sequence[int], *, stream: bool = False, **options: Any
    ) -> Completion | Iterator[TokenEvent]:
        """Continues a text, without a chat template.

        Args:
            prompt: text, or tokens.
            stream: return an iterator of TokenEvent; closing it cancels.
            options: fields of SamplingParams; ``on_prefill`` and ``is_cancelled`` as in
                ``edgeinfer.runtime.generator.Task``; ``speculate``: guess tokens ahead by
                "lookup" in the text or by the "draft" model, while that is faster, or "off".
                The default is "auto": "draft" where there is one, else "lookup" where the
                same tokens come out, bit for bit, as with "off"; ``overflow``:
                when the context is full, "stop" (the default) or "shift", which goes on
                with the first tokens and the last half of the text; ``adapters``: in place of
                ``model.adapters``.

        Raises:
            UsageError: an option makes no sense, or the prompt is empty.
            ContextFullError: the prompt does not fit the context.
            ClosedError: the model is closed.
        """
        tokens = self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
        events = self._events(tokens, options)
        return events if stream else collect(events)

    @overload
    def chat(
        self,
        messages: Sequence[Message],
        *,
        stream: Literal[False] = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Completion: ...
    @overload
    def chat(
        self,
        messages: Sequence[Message],
        *,
        stream: Literal[True],
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Iterator[TokenEvent]: ...
    def chat(
        self,
        messages: Sequence[Message],
        *,
        stream: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Completion | Iterator[TokenEvent]:
        """Answers a conversation.

        Args:
            messages: records with "role" and "content".
            stream: return an iterator of TokenEvent; closing it cancels.
            tools: JSON schemas of functions, for templates that know tools.
            template_options: what else the template takes, such as ``enable_thinking``.
            options: as in ``generate``.

        Raises:
            UnsupportedError: the model has no chat template.
            UsageError: an option makes no sense, or the template refuses the messages.
            ContextFullError: the conversation does not fit the context; nothing is cut.
            ClosedError: the model is closed.
        """
        require_causal(self._live().config)
        tokens = self.chat_tokens(messages, tools=tools, template_options=template_options)
        events = self._events(tokens, options)
        return events if stream else collect(events)

    def chat_tokens(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_options: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Returns the tokens of a conversation up to where the model answers."""
        if self.template is None:
            raise UnsupportedError(
                "this model has no chat template",
                hint="it continues text: generate() in Python, run --raw on the command line",
            )
        text = self.template.render(
            messages, tools=tools, add_generation_prompt=True, **(template_options or {})
        )
        tokens = self.tokenizer.encode(text, add_special=False, parse_special=True)
        bos = self.tokenizer.bos_id
        # Templates differ in whether they write it themselves.
        if self.tokenizer.add_bos and bos is not None and tokens[:1] != [bos]:
            tokens.insert(0, bos)
        return tokens

    def session(self, *, system: str | None = None) -> Session:
        """Opens a conversation that keeps its prefix in the cache.

        Args:
            system: the system message, if any.

        Raises:
            UnsupportedError: the model reads texts as a whole, and writes none.
        """
        require_causal(self._live().config)
        return Session(self, system=system)

    def open_sequence(self) -> TextSequence:
        """Opens a sequence of its own, for a caller that keeps it (``Session``)."""
        return TextSequence(self._live(), self.plan.context, self.adapters)

    def add_adapter(self, path: str | os.PathLike[str]) -> int:
        """Takes a low-rank adapter (LoRA) in, for ``adapters`` here and of single calls.

        Args:
            path: a GGUF file, such as ``edgeinfer convert MODEL --lora ADAPTER`` writes.

        Returns:
            Its number.

        Raises:
            NotFoundError: there is no such file.
            CorruptFileError: it is damaged, or of a model of another shape.
            UnsupportedError: it is of another architecture, or the backend has no adapters.
            DoesNotFitError: it does not fit the memory that the model was planned for.
        """
        engine = require_adaptable(self._live())
        taken = read_header(path).float_bytes
        need = self.plan.needed_bytes + sum(self._added.values()) + taken
        if need > self.plan.budget_bytes:
            raise DoesNotFitError(
                f"{format_bytes(need)} needed with {os.fspath(path)}, "
                f"{format_bytes(self.plan.budget_bytes)} available",
                need_bytes=need,
                have_bytes=self.plan.budget_bytes,
                suggest="merge the adapter: edgeinfer convert MODEL --merge-lora ADAPTER",
            )
        number = engine.add_adapter(Path(path))
        self._added[number] = taken
        return number

    def remove_adapter(self, adapter: int) -> None:
        """Forgets an adapter; conversations that use it still do."""
        self.adapters = tuple(use for use in self.adapters if use[0] != adapter)
        engine = self._live()
        if isinstance(engine, Adaptable):
            engine.remove_adapter(adapter)
        self._added.pop(adapter, None)

    def stream(
        self, sequence: TextSequence, tokens: Sequence[int], options: Mapping[str, Any]
    ) -> Iterator[TokenEvent]:
        """Answers tokens in a sequence of the caller's."""
        return self._run(sequence, self._task(tokens, options))

    # ---- numbers -------------------------------------------------------------------------

    @property
    def engine(self) -> Engine:
        """What runs the model, for measurements: it opens sequences of its own.

        Raises:
            ClosedError: the model is closed.
        """
        engine = self._live()
        self._watch.lent()
        return engine

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Returns the logits after each token, float32 (n_tokens, n_vocab).

        Raises:
            ContextFullError: more tokens than the context holds.
            UsageError: a token is not in the vocabulary.
        """
        engine = self._live()
        require_causal(engine.config)
        self._check(tokens)
        return self._rows(engine, engine.step, tokens)

    def embed(self, texts: Sequence[str], *, truncate: bool = False) -> NDArray[np.float32]:
        """Returns a vector a text, float32 (n, dim), of length 1.

        It is made of the final normalised hidden states of the text's tokens as the file says:
        of the last token, of the first, or their mean, which is also where it says nothing.
        Models that were not trained for embeddings give rough ones.

        Args:
            texts: any; a model that reads a text as a whole takes many in a step.
            truncate: leave the end of texts out that are longer than the context.

        Raises:
            UnsupportedError: the backend does not give hidden states.
            UsageError: a text has no tokens.
            ContextFullError: a text is longer than the context, and is not to be cut.
        """
        engine = self._live()
        if isinstance(texts, str):
            raise UsageError("embed takes a list of texts", hint="embed([text])")
        tokens = tokens_of(self.tokenizer, texts, most=self.plan.context, truncate=truncate)
        for text in tokens:
            self._check(text)
        return vectors_of(engine, tokens, open_sequence=self.open_sequence, batch=self.plan.batch)

    # ---- life ----------------------------------------------------------------------------

    def close(self) -> None:
        """Gives the memory back. Every later call raises ClosedError; closing twice is fine."""
        if self.draft is not None:
            self.draft.close()
        self._watch.close()
        engine, self._engine, self._idle = self._engine, None, None
        if engine is not None and os.getpid() == self._process:
            engine.shutdown()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._engine is None else self.backend
        return f"<edgeinfer.Model {self.reference or self.path} ({state})>"

    # ---- inside --------------------------------------------------------------------------

    def _live(self) -> Engine:
        if self._engine is None:
            raise ClosedError("the model is closed", hint="load it again")
        if os.getpid() != self._process:
            raise ClosedError(
                "the model was loaded before this process was forked from another",
                hint="load it in the process that uses it, or start processes by 'spawn'",
            )
        return self._engine

    def _check(self, tokens: Sequence[int]) -> None:
        vocab = self._live().config.vocab_size
        bad = next((token for token in tokens if not 0 <= token < vocab), None)
        if bad is not None:
            raise UsageError(f"token {bad} is not in the vocabulary of {vocab}")
        if len(tokens) > self.plan.context:
            raise ContextFullError(
                f"the text has {len(tokens)} tokens, the context holds {self.plan.context}",
                hint="shorten it, or load the model with a longer context",
            )

    def _task(self, tokens: Sequence[int], options: Mapping[str, Any]) -> Task:
        """Checks everything that can be checked before anything runs."""
        engine = self._live()
        require_causal(engine.config)
        options = dict(options)
        drafter = self._drafter(options.pop("speculate", None))
        overflow = options.pop("overflow", None) or "stop"
        if overflow not in _OVERFLOWS:
            raise UsageError(f"overflow is {overflow!r}", hint="overflow is stop or shift")
        unknown = options.keys() - _FIELDS - _TASK_OPTIONS
        if unknown:
            raise UsageError(
                f"unknown option: {', '.join(sorted(unknown))}",
                hint=f"options: {', '.join(sorted(_FIELDS | _TASK_OPTIONS | _OWN_OPTIONS))}",
            )
        sampling = {name: value for name, value in options.items() if name in _FIELDS}
        params = replace(self.sampling, **sampling)
        check_params(params, engine.config.vocab_size)
        self._check(tokens)
        if not tokens:
            raise UsageError("the prompt is empty", hint="give at least one character")
        return Task(
            prompt=tokens,
            params=params,
            decoder=self.tokenizer.stream(skip_special=True, continues=True),
            end_tokens=self.tokenizer.eos_ids,
            drafter=drafter,
            shift=overflow == "shift",
            **{name: options[name] for name in _TASK_OPTIONS if options.get(name) is not None},
        )

    def _drafter(self, kind: str | None) -> Callable[[], Drafter] | None:
        """What makes the drafter of a generation, if there is to be one."""
        draft, kind = self.draft, kind or "auto"
        if kind not in _SPECULATIONS:
            raise UsageError(
                f"speculate is {kind!r}", hint=f"speculate is {', '.join(_SPECULATIONS)}"
            )
        if kind == "auto":
            exact = isinstance(self._engine, BatchInvariant)
            kind = "draft" if draft is not None else "lookup" if exact else "off"
        if kind == "lookup":
            return PromptLookup
        if kind == "off":
            return None
        if draft is None:
            raise UsageError("there is no draft model", hint="load with draft=, or -md MODEL")
        return lambda: DraftModel(draft)

    def _events(self, tokens: Sequence[int], options: Mapping[str, Any]) -> Iterator[TokenEvent]:
        """Checks now, runs when the iterator is used."""
        rest = dict(options)
        adapters = rest.pop("adapters", None)
        task = self._task(tokens, rest)
        return self._lent(task, self.adapters if adapters is None else tuple(adapters))

    def _lent(self, task: Task, adapters: tuple[AdapterUse, ...]) -> Iterator[TokenEvent]:
        with self._lease() as sequence:
            sequence.adapt(adapters)
            yield from self._run(sequence, task)

    def _run(self, sequence: TextSequence, task: Task) -> Iterator[TokenEvent]:
        engine = self._live()
        task = replace(task, on_step=partial(self._watch.step, sequence))
        events = (
            write(engine, task)
            if isinstance(engine, Writer)
            else generate(self._scheduler, sequence, task)
        )
        for event in events:
            if event.timings is not None:
                self._watch.finished(sequence, event.timings)
            yield event

    @contextmanager
    def _lease(self) -> Iterator[TextSequence]:
        """Lends the idle sequence if it is free, or a new one."""
        with self._leases:
            sequence, self._idle = self._idle, None
        if sequence is None:
            sequence = self.open_sequence()
        try:
            yield sequence
        finally:
            with self._leases:
                keep = self._engine is not None and self._idle is None
                if keep:
                    self._idle = sequence
            if not keep and self._engine is not None:
                sequence.close()

    def _rows(
        self,
        engine: Engine,
        step: Callable[[list[Slice]], NDArray[np.float32]],
        tokens: Sequence[int],
    ) -> NDArray[np.float32]:
        """Runs tokens through a fresh sequence in chunks; a row for each."""
        size = self.plan.batch
        chunks = [tokens[at : at + size] for at in range(0, len(tokens), size)]
        sequence = self.open_sequence()
        try:
            rows = [
                step([Slice(sequence.number, chunk, wants_logits=len(chunk))]) for chunk in chunks
            ]
        finally:
            sequence.close()
        return np.concatenate(rows or [np.zeros((0, engine.config.vocab_size), np.float32)])
