"""MLC LLM's own engine, where the user has installed it: folders that ``convert --to mlc`` wrote.

It is asked for by name (``--backend mlc_llm``). MLCEngine gives text and no logits: of a prompt's
tokens it makes the answer by itself, on the device that it finds, with its own sampler. So there
are conversations and generated text, in a context of its own; ``eval``, ``bench``, guessing ahead,
embeddings, log-probabilities, saved caches and adapters there are not.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from importlib import import_module
from importlib.metadata import packages_distributions, version
from typing import Any, NoReturn

from edgeinfer.backends.base import Logits, ModelFiles, Passage, Slice, Support
from edgeinfer.backends.checks import check_trim
from edgeinfer.device.profile import DeviceProfile
from edgeinfer.errors import ClosedError, EdgeInferError, UnsupportedError
from edgeinfer.formats.mlc import folder as folders
from edgeinfer.planner import mlc as memory
from edgeinfer.planner.footprint import Footprint, Setting
from edgeinfer.planner.outline import Outline
from edgeinfer.planner.plan import MemoryPlan
from edgeinfer.types import FinishReason, SamplingParams

MODULE = "mlc_llm"
# PyPI has placeholders of its names and nothing else.
INSTALL = "see https://llm.mlc.ai/docs/install/mlc_llm.html; --backend mlc needs it not"

_log = logging.getLogger("edgeinfer")
_PASSED = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "max_tokens")
# What its requests have no field for, and where that changes nothing.
_LACKS = {"top_k": 0, "min_p": 0.0, "typical_p": 1.0, "repeat_penalty": 1.0}


class MlcLlmBackend:
    """Hands folders to MLCEngine."""

    name = "mlc_llm"
    formats = frozenset({"mlc"})

    def version(self) -> str:
        """The version of MLC LLM, or "" where it is not installed."""
        found = packages_distributions().get(MODULE, [])
        return version(found[0]) if found else ""

    def probe(self, device: DeviceProfile) -> Support:
        """Imports the library."""
        try:
            _library()
        except UnsupportedError as error:
            return Support(usable=False, reason=f"{error.message} ({INSTALL})", only_by_name=True)
        return Support(usable=True, reason=f"{MODULE} {self.version()}", only_by_name=True)

    def footprint(self, model: Outline, setting: Setting) -> Footprint:
        """As our own backend for these folders; a GPU has memory of its own."""
        return memory.footprint(model, setting)

    def pace(self, model: Outline) -> None:
        """Not known: it may run anywhere."""

    def load(self, files: ModelFiles, plan: MemoryPlan) -> MlcLlmEngine:
        """Starts an engine; MLC LLM compiles the model first, where it has not yet.

        Raises:
            UnsupportedError: MLC LLM is not installed, or the model is not known.
            CorruptFileError: a file of the folder is missing, cut short or damaged.
            EdgeInferError: MLC LLM cannot load it.
        """
        library = _library()
        folder = folders.read(files.path)
        try:
            engine = library.MLCEngine(
                str(files.path),
                device="cpu" if plan.gpu_layers == 0 else "auto",
                mode="interactive",  # one conversation at a time
                engine_config=library.serve.EngineConfig(
                    max_single_sequence_length=plan.context,
                    max_total_sequence_length=plan.context,
                ),
            )
        except Exception as error:  # whatever it and its compiler raise
            raise EdgeInferError(
                f"{files.path}: MLC LLM cannot load it: {error}", hint="--backend mlc runs it too"
            ) from error
        return MlcLlmEngine(engine, folder, plan)


def _library() -> Any:
    """The module, with an engine in it."""
    try:
        library = import_module(MODULE)
    except Exception as error:  # a library of another TVM, too, fails in its own ways
        raise UnsupportedError(f"{MODULE} cannot be imported: {error}", hint=INSTALL) from error
    if not hasattr(library, "MLCEngine"):
        raise UnsupportedError(f"{MODULE} has no MLCEngine", hint=INSTALL)
    return library


class MlcLlmEngine:
    """A running MLCEngine; a ``Writer``."""

    def __init__(self, engine: Any, folder: folders.MlcFolder, plan: MemoryPlan) -> None:
        self.config = replace(folder.config, context=plan.context)
        self._engine: Any | None = engine
        self._open: set[int] = set()
        self._opened = 0

    def open(self) -> int:
        """As ``Engine.open``: a number, for what has been read is MLC LLM's to keep."""
        self._live()
        self._opened += 1
        self._open.add(self._opened)
        return self._opened

    def step(self, batch: Sequence[Slice]) -> Logits:
        """Refuses."""
        self._live()
        _refuse("logits, which this needs")

    def trim(self, sequence: int, length: int) -> None:
        """As ``Engine.trim``: nothing has been read."""
        self._live(sequence)
        check_trim(0, length)

    def close(self, sequence: int) -> None:
        """As ``Engine.close``."""
        self._live(sequence)
        self._open.remove(sequence)

    def shutdown(self) -> None:
        """Ends MLC LLM's threads and gives its memory back."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.terminate()

    def write(
        self, prompt: Sequence[int], params: SamplingParams
    ) -> Generator[Passage, None, None]:
        """As ``Writer.write``.

        Raises:
            UnsupportedError: log-probabilities are wanted.
            EdgeInferError: MLC LLM refuses the request, or fails.
        """
        engine = self._live()
        if params.logprobs:
            _refuse("log-probabilities of tokens by their number")
        _tell_what_it_lacks(params)
        wanted = {name: getattr(params, name) for name in _PASSED}
        try:
            answer = engine.completions.create(
                prompt=list(prompt),
                stream=True,
                stream_options={"include_usage": True},
                logit_bias=dict(params.logit_bias) or None,
                **wanted,
            )
            with closing(answer):  # which ends the request
                yield from _passages(answer)
        except Exception as error:  # a bad request, or something below
            raise EdgeInferError(f"MLC LLM: {error}") from error

    def _live(self, sequence: int | None = None) -> Any:
        if self._engine is None:
            raise ClosedError("the engine is shut down")
        if sequence is not None and sequence not in self._open:
            raise ClosedError(f"sequence {sequence} is closed")
        return self._engine


def _passages(answer: Generator[Any, None, None]) -> Generator[Passage, None, None]:
    ended, tokens = FinishReason.LENGTH, 0
    for piece in answer:
        if piece.usage is not None:
            tokens = piece.usage.completion_tokens
        for choice in piece.choices:
            if choice.finish_reason == "stop":
                ended = FinishReason.STOP
            if choice.text:
                yield Passage(choice.text)
    yield Passage("", ended, tokens)


def _tell_what_it_lacks(params: SamplingParams) -> None:
    usual = SamplingParams()
    asked = [
        name
        for name, neutral in _LACKS.items()
        if getattr(params, name) not in (neutral, getattr(usual, name))
    ]
    if asked:
        _log.warning("MLC LLM samples without %s", ", ".join(asked))


def _refuse(what: str) -> NoReturn:
    raise UnsupportedError(
        f"MLC LLM's engine gives text, not {what}", hint="--backend mlc runs the same folder"
    )
