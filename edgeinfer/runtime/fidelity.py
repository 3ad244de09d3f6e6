"""What a conversion kept: each output on its own backend, beside the source's weights as they are.

reference = Reference.of(exact_gguf, text, folder)   # runs the source, once
record = measured(output, "onnx", reference)
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeinfer.arch import config_from_gguf
from edgeinfer.backends import registry
from edgeinfer.backends.base import ModelFiles
from edgeinfer.backends.native import NativeBackend
from edgeinfer.device.detect import detect
from edgeinfer.evaluation.chunks import CONTEXT, Chunks
from edgeinfer.evaluation.compact import ReferenceLogits
from edgeinfer.evaluation.run import Progress, record
from edgeinfer.formats.gguf import open_gguf
from edgeinfer.planner import plan_model
from edgeinfer.runtime.evaluation import evaluate, evaluation_record, text_chunks
from edgeinfer.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from edgeinfer.backends.registry import Candidate

CHUNKS = 8  # of CONTEXT tokens, by default
Bars = Callable[[str, int], Progress]  # told what is read and how many chunks; returns a progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A text to predict."""

    name: str
    content: str

    def about(self) -> dict[str, Any]:
        """Returns what a report says of it."""
        octets = self.content.encode()
        return {
            "path": self.name,
            "bytes": len(octets),
            "sha256": hashlib.sha256(octets).hexdigest(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What the source says of a text."""

    text: Text
    chunks: Chunks
    logits: ReferenceLogits
    about: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        exact: Path,
        text: Text,
        folder: Path,
        *,
        outputs: Sequence[Path] = (),
        chunks: int = CHUNKS,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Reference:
        """Lets the native engine read the text, with a cache of 32-bit floats.

        Args:
            exact: a GGUF of float tensors.
            text: to predict.
            folder: where the logits go, two bytes for a token and word of the vocabulary.
            outputs: will read the same chunks, whose length has to fit their contexts.
            chunks: how many to read at most, of 512 tokens; or more, where they are shorter.
            threads: at most so many; None for all that there are.
            progress: called after each chunk.

        Raises:
            DoesNotFitError: the weights do not fit the memory.
            UsageError: the text does not fill a chunk.
            EdgeInferError: the disk cannot take the logits.
        """
        backend = NativeBackend()
        with open_gguf(exact) as file:
            longest = [config_from_gguf(file).context, *map(_longest_context, outputs)]
            context = min(CONTEXT, *longest)
            limit = chunks * CONTEXT // context
            cut = text_chunks(load_tokenizer(file), text.content, context=context, limit=limit)
            plan = plan_model(
                file,
                device=detect(),
                context=context,
                threads=threads,
                kv_type_k="f32",
                kv_type_v="f32",
            )
            engine = backend.load(ModelFiles(path=exact, format="gguf", gguf=file), plan)
        about = {"backend": backend.name, "version": backend.version(), "kv_type_k": "f32"}
        try:
            logits = record(
                engine,
                cut,
                folder / "reference.logits",
                batch=plan.batch,
                about=about,
                progress=progress,
            )
        finally:
            engine.shutdown()
        return cls(text=text, chunks=cut, logits=logits, about=about)


def _longest_context(output: Path) -> int:
    """Tokens that an output reads; those of a GGUF are the source's."""
    from edgeinfer.planner.outline import Outline
    from edgeinfer.runtime.opened import opened
    from edgeinfer.store import resolve

    with opened(resolve(str(output), offline=True)) as model:
        return model.header.longest_context if isinstance(model.header, Outline) else CONTEXT


def own_backend(format_: str) -> Candidate:
    """The backend that is best at a format here.

    Raises:
        UnsupportedError: none runs it; the hint says what to install.
    """
    found = registry.candidates(detect())
    able = [candidate for candidate in found if registry.unfit(candidate, format_) is None]
    if not able:
        raise registry.none_fits(found, format_)
    return able[0]


def measured(
    output: Path,
    format_: str,
    reference: Reference,
    *,
    threads: int | None = None,
    bars: Bars | None = None,
) -> dict[str, Any]:
    """Measures an output: the record that ``edgeinfer eval --json`` prints.

    Args:
        output: the file or folder.
        format_: its format.
        reference: what the source says.
        threads: at most so many; None for all that there are.
        bars: shows how far it is.

    Raises:
        UnsupportedError: no backend runs the format here.
        UsageError: its tokenizer reads the text as other tokens, or its context is shorter.
        EdgeInferError: whatever loading it says.
    """
    from edgeinfer.runtime.loading import load
    from edgeinfer.store.local import size_of

    candidate = own_backend(format_)
    context = reference.chunks.context
    with load(
        output, backend=candidate.name, context=context, threads=threads, offline=True
    ) as model:
        chunks = text_chunks(
            model.tokenizer, reference.text.content, context=context, limit=len(reference.chunks)
        )
        start = time.perf_counter()
        found = evaluate(
            model,
            chunks,
            reference.logits,
            progress=bars(f"{output.name} ({candidate.name})", len(chunks)) if bars else None,
        )
        return evaluation_record(
            model,
            found,
            chunks,
            format=format_,
            size=size_of(output),
            version=candidate.version,
            text=reference.text.about(),
            reference=reference.about,
            seconds=time.perf_counter() - start,
        )
