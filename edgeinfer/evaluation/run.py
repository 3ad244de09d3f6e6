"""Reads the chunks of a text through an engine, whichever it is, and scores them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeinfer.backends.adapters import open_adapted
from edgeinfer.backends.base import AdapterUse, Engine, Slice
from edgeinfer.errors import UsageError
from edgeinfer.evaluation.chunks import Chunks
from edgeinfer.evaluation.compact import ReferenceLogits, ReferenceWriter
from edgeinfer.evaluation.scores import (
    Distance,
    Logits,
    ReferenceRows,
    Surprise,
    distance,
    surprise,
)

Progress = Callable[[int], object]  # told the chunks that are done

_MOST_LOGITS = 1 << 24  # numbers that a step returns: 64 MiB


def evaluate(
    engine: Engine,
    chunks: Chunks,
    *,
    batch: int,
    reference: ReferenceLogits | None = None,
    adapters: Sequence[AdapterUse] = (),
    progress: Progress | None = None,
) -> Surprise:
    """Scores every token of the second halves of the chunks.

    Args:
        engine: with room for a chunk.
        chunks: of the text.
        batch: tokens a step.
        reference: what another model said of the same chunks.
        adapters: what it computes with.
        progress: called after each chunk.

    Returns:
        A ``Distance`` if there is a reference.

    Raises:
        UsageError: the reference is of another text, or of another vocabulary.
        CorruptFileError: the reference is damaged.
    """
    if reference is not None:
        check_same_text(reference, chunks, engine.config.vocab_size)
    scores: list[Surprise] = []
    for number, pieces in enumerate(_read(engine, chunks, batch, adapters)):
        rows = None if reference is None else reference.chunk(number)
        for at, logits in pieces:
            part = slice(at, at + len(logits))
            targets = chunks.targets[number, part]
            if rows is None:
                scores.append(surprise(logits, targets))
            else:
                expected = ReferenceRows(rows.logits[part], rows.best[part], rows.nll[part])
                scores.append(distance(logits, targets, expected))
        if progress is not None:
            progress(number + 1)
    return joined(scores)


def record(
    engine: Engine,
    chunks: Chunks,
    path: Path,
    *,
    batch: int,
    about: Mapping[str, Any],
    adapters: Sequence[AdapterUse] = (),
    progress: Progress | None = None,
) -> ReferenceLogits:
    """Writes what a model says of the chunks, for others to be measured against.

    Args:
        engine: with room for a chunk.
        chunks: of the text.
        path: the file; it appears when it is complete.
        batch: tokens a step.
        about: what the file says of its origin.
        adapters: what it computes with.
        progress: called after each chunk.

    Raises:
        EdgeInferError: the disk cannot take the file.
    """
    with ReferenceWriter(
        path,
        chunks=len(chunks),
        rows=chunks.scored,
        vocab=engine.config.vocab_size,
        about={**about, "text": chunks.digest()},
    ) as writer:
        for number, pieces in enumerate(_read(engine, chunks, batch, adapters)):
            for at, logits in pieces:
                writer.write(logits, chunks.targets[number, at : at + len(logits)])
            if progress is not None:
                progress(number + 1)
    return ReferenceLogits(path)


def joined(parts: list[Surprise]) -> Surprise:
    """The scores of all parts in one record, in order."""
    distances = [part for part in parts if isinstance(part, Distance)]
    nll = np.concatenate([part.nll for part in parts])
    if not distances:
        return Surprise(nll=nll)
    return Distance(
        nll=nll,
        nll_reference=np.concatenate([part.nll_reference for part in distances]),
        kl=np.concatenate([part.kl for part in distances]),
        same_top=np.concatenate([part.same_top for part in distances]),
    )


def check_same_text(reference: ReferenceLogits, chunks: Chunks, vocab: int) -> None:
    """Refuses to compare what cannot be compared.

    Raises:
        UsageError: the reference read other tokens, or has another vocabulary.
    """
    if reference.vocab != vocab:
        raise UsageError(
            f"{reference.path}: a vocabulary of {reference.vocab}, the model has {vocab}",
            hint="a reference is the same model in a more exact form",
        )
    if reference.about.get("text") != chunks.digest():
        raise UsageError(
            f"{reference.path}: made of other tokens than the model reads",
            hint="a reference is the same model in a more exact form, on the same text",
        )


def _read(
    engine: Engine, chunks: Chunks, batch: int, adapters: Sequence[AdapterUse] = ()
) -> Iterator[Iterator[tuple[int, Logits]]]:
    """For each chunk the pieces of its scored rows: (first row, logits)."""
    sequence = open_adapted(engine, adapters)
    try:
        for tokens in chunks.tokens:
            engine.trim(sequence, 0)
            # The logits after the last token say nothing about this chunk.
            yield _pieces(engine, sequence, tokens[:-1].tolist(), chunks.first, batch)
    finally:
        engine.close(sequence)


def _pieces(
    engine: Engine, sequence: int, tokens: list[int], first: int, batch: int
) -> Iterator[tuple[int, Logits]]:
    for at in range(0, first, batch):
        engine.step([Slice(sequence, tokens[at : min(at + batch, first)], wants_logits=0)])
    size = max(1, min(batch, _MOST_LOGITS // engine.config.vocab_size))
    for at in range(first, len(tokens), size):
        part = tokens[at : at + size]
        yield at - first, engine.step([Slice(sequence, part, wants_logits=len(part))])
