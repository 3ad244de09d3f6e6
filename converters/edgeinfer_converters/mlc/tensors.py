"""The tensors of an MLC folder: rows of the source's tensors, joined and in Hugging Face order.

Checkpoints, GGUFs and MLC LLM differ in what lies in one tensor and in the order of its rows.
The graph's tensors are the common ground: each is a range of rows of a file's tensor, and each
tensor of MLC LLM a few of the graph's, one below the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeinfer.arch import EngineTensor, engine_tensors
from edgeinfer.arch.tensors import split_name
from edgeinfer.arch.transforms import TRANSFORMS, Rows
from edgeinfer.errors import UnsupportedError
from edgeinfer.formats.mlc.families import Family, Output, family_of
from edgeinfer.quant import get
from edgeinfer_converters.checkpoint import GgufSource, HuggingFaceSource
from edgeinfer_converters.tensors import Tensor, matrix_shape

PARTS = (".weight", ".bias")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Rows of a tensor, or elements of a vector.

    Attributes:
        tensor: of the source.
        first: row.
        count: of rows.
        order: for each row in Hugging Face order, the row among these; None if they are in it.
    """

    tensor: Tensor
    first: int
    count: int
    order: Rows | None

    def read(self, first: int, last: int) -> NDArray[np.float32]:
        """Returns rows first..last of these in Hugging Face order, (rows, columns)."""
        if len(self.tensor.shape) == 1:
            row = self.tensor.read(0, 1).reshape(-1, 1)
            return self._ordered(lambda low, high: row[low:high], first, last)
        return self._ordered(self.tensor.read, first, last)

    def stored(self, type: str, first: int, last: int) -> NDArray[np.uint8] | None:
        """Returns the same rows' bytes if the source has them as ``type``, else None."""
        kind = get(type)
        if self.tensor.stored_type != kind:
            return None

        def rows(low: int, high: int) -> NDArray[np.uint8]:
            found = self.tensor.stored(kind, low, high)
            assert found is not None
            return found

        return self._ordered(rows, first, last)

    def _ordered(
        self, rows: Callable[[int, int], NDArray[Any]], first: int, last: int
    ) -> NDArray[Any]:
        if self.order is None:
            return rows(self.first + first, self.first + last)
        wanted = self.order[first:last]
        # Only rows of one head change places, so those wanted lie near each other.
        low, high = int(wanted.min()), int(wanted.max()) + 1
        near: NDArray[Any] = rows(self.first + low, self.first + high)[wanted - low]
        return near


@dataclass(frozen=True, slots=True, kw_only=True)
class MlcTensor:
    """A tensor under MLC LLM's name, before it is quantised."""

    name: str
    slices: Sequence[Slice]
    columns: int | None  # None for a vector

    @property
    def rows(self) -> int:
        """Rows of a matrix, elements of a vector."""
        return sum(part.count for part in self.slices)

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns) or (length,)."""
        return (self.rows,) if self.columns is None else (self.rows, self.columns)

    @property
    def source_type(self) -> str:
        """How the source has the weights: the types of its tensors."""
        kinds = [part.tensor.stored_type or part.tensor.exact_type for part in self.slices]
        return "+".join(dict.fromkeys(map(str, kinds)))

    def blocks(self, source: str, most: int) -> Iterator[tuple[int, Slice, int, int]]:
        """Cuts what comes from a source tensor into blocks of at most ``most`` rows.

        Yields:
            (row of this tensor, slice, first, last)
        """
        row = 0
        for part in self.slices:
            if part.tensor.name == source:
                for first in range(0, part.count, most):
                    yield row + first, part, first, min(first + most, part.count)
            row += part.count


def mlc_tensors(source: HuggingFaceSource | GgufSource) -> list[MlcTensor]:
    """Finds every tensor that MLC LLM has of a model, in the order of the model.

    Raises:
        UnsupportedError: MLC LLM does not know the family, or has no place for a tensor.
    """
    family = family_of(source.arch, source.config)
    tensors = {tensor.name: tensor for tensor in source.tensors}
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    graph = {
        part.name: _slice(source, part, tensors[part.source])
        for part in engine_tensors(source.arch, source.config, shapes)
    }
    if family.output is Output.ALWAYS and source.config.tied_output:
        graph["output.weight"] = graph["token_embd.weight"]
    found: list[MlcTensor] = []
    outside = _joined(graph, family.model, "", family.prefix)
    blocks = [
        tensor
        for i in range(source.config.layers)
        for tensor in _joined(
            graph, family.block, f"blk.{i}.", family.prefix + family.blocks.format(i), family
        )
    ]
    found = [*outside[:1], *blocks, *outside[1:]]
    used = {id(part) for tensor in found for part in tensor.slices}
    unused = sorted(name for name, part in graph.items() if id(part) not in used)
    if unused:
        raise UnsupportedError(
            f"{source.path}: MLC LLM's {family.model_type} has no place for {unused[0]}"
            + (f" and {len(unused) - 1} more" if len(unused) > 1 else ""),
            hint="--to gguf keeps this model as it is",
        )
    return found


def _joined(
    graph: Mapping[str, Slice],
    names: Mapping[tuple[str, ...], str],
    block: str,
    prefix: str,
    family: Family | None = None,
) -> list[MlcTensor]:
    found = []
    for kinds, name in names.items():
        for part in PARTS:
            if part == ".bias" and not (family and family.biases.issuperset(kinds)):
                continue
            slices = [
                graph[f"{block}{kind}{part}"] for kind in kinds if f"{block}{kind}{part}" in graph
            ]
            if len(slices) == len(kinds):
                shape = slices[0].tensor.shape
                columns = None if len(shape) == 1 else matrix_shape(slices[0].tensor)[1]
                found.append(MlcTensor(name=prefix + name + part, slices=slices, columns=columns))
    return found


def _slice(source: HuggingFaceSource | GgufSource, part: EngineTensor, tensor: Tensor) -> Slice:
    transform = source.arch.transforms.get(split_name(part.name)[1])
    order = None
    if transform is not None:
        theirs = TRANSFORMS[transform].row_order(source.config, part.row_count)
        order = None if theirs is None else np.argsort(theirs)
    return Slice(tensor=tensor, first=part.row_start, count=part.row_count, order=order)
