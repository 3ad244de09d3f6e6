"""One pass over a source, whatever is made of it: each block of rows is read and decoded once.

All outputs get their names, or none does: first everything is planned, which refuses what can be
refused, then all is written under hidden names, and when all of it is on disk it is renamed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgeinfer_converters.checkpoint import GgufSource, HuggingFaceSource, open_source
from edgeinfer_converters.lora import merged, read_peft
from edgeinfer_converters.pipeline import (
    ConvertReport,
    Export,
    Piece,
    ProgressCallback,
    Teller,
)
from edgeinfer_converters.shared import share

Planned = Callable[[HuggingFaceSource | GgufSource], Export]


def one_pass(
    source: str | os.PathLike[str],
    plans: Sequence[Planned],
    *,
    merge_lora: str | os.PathLike[str] | None = None,
    progress: ProgressCallback | None = None,
) -> list[ConvertReport]:
    """Converts a source to one format or several.

    Args:
        source: a Hugging Face folder or a GGUF file.
        plans: plan an output each.
        merge_lora: a PEFT adapter to add to the weights.
        progress: called after each block of rows.

    Returns:
        A report for each output; their time and memory are those of all together.

    Raises:
        EdgeInferError: of any output; then none of them appears.
    """
    with written(source, plans, merge_lora=merge_lora, progress=progress) as outputs:
        return outputs.commit()


@dataclass(frozen=True, slots=True)
class Written:
    """Outputs that are complete and on disk, but have no names yet."""

    exports: Sequence[Export]
    start: float

    def commit(self, count: int | None = None) -> list[ConvertReport]:
        """Gives the first ``count`` outputs, by default all, their names."""
        named = self.exports[:count]
        for export in named:
            export.commit()
        return [export.report(time.perf_counter() - self.start) for export in named]


@contextmanager
def written(
    source: str | os.PathLike[str],
    plans: Sequence[Planned],
    *,
    merge_lora: str | os.PathLike[str] | None = None,
    progress: ProgressCallback | None = None,
) -> Iterator[Written]:
    """Plans and writes outputs; leaving forgets those that were not given their names.

    The arguments and errors are those of ``one_pass``.
    """
    start = time.perf_counter()
    with ExitStack() as stack:
        opened = open_source(Path(source))
        stack.callback(opened.close)
        if merge_lora is not None:
            opened.tensors = merged(opened.tensors, read_peft(Path(merge_lora), opened))
        if len(plans) > 1:
            opened.tensors = share(opened.tensors)
        exports: list[Export] = []
        for plan in plans:
            exports.append(plan(opened))
            stack.callback(exports[-1].abort)
        told = Teller(len(opened.tensors), sum(e.nbytes for e in exports), progress)
        for number, tensor in enumerate(opened.tensors, 1):
            for piece in _in_turns([export.write(tensor.name) for export in exports]):
                told(number, piece)
        for export in exports:
            for piece in export.finish():
                told(len(opened.tensors), piece)
        yield Written(exports, start)


def _in_turns(writings: Iterable[Iterator[Piece]]) -> Iterator[Piece]:
    """Lets each write a block, then each the next, so that they want the same rows."""
    left = list(writings)
    while left:
        for writing in tuple(left):
            piece = next(writing, None)
            if piece is None:
                left.remove(writing)
            else:
                yield piece
