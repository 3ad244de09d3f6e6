"""An MLC folder as what is converted: its tensors taken apart, and put in a GGUF's order.

It is a Hugging Face folder with other weights and its settings elsewhere. Codes of 4 bits with a
float16 scale *are* blocks of GGUF's Q4_0 (see ``search.py``), which are handed on as they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeinfer.arch import numbers_from_hf
from edgeinfer.arch.tensors import (
    EngineTensor,
    checkpoint_names,
    engine_tensors,
    file_shape,
    split_name,
)
from edgeinfer.arch.transforms import TRANSFORMS, Rows
from edgeinfer.errors import CorruptFileError, UnsupportedError
from edgeinfer.formats.mapped import Parts
from edgeinfer.formats.mlc.chat_config import NAME, as_hugging_face
from edgeinfer.formats.mlc.families import family_of
from edgeinfer.formats.mlc.folder import MlcFolder, Stored, read
from edgeinfer.formats.mlc.quants import Quant
from edgeinfer.quant import QuantType, get
from edgeinfer_converters.checkpoint import HuggingFaceSource
from edgeinfer_converters.json_files import read_json
from edgeinfer_converters.mlc.packing import STORED, Floats, Words, unpack, widened
from edgeinfer_converters.mlc.search import Q4_0, to_q4_0
from edgeinfer_converters.mlc.tensors import PARTS
from edgeinfer_converters.tensors import Tensor

_BLOCK = 32  # weights of a block of Q4_0
_TRANSPOSED_NOT = ("embed_tokens.", "embd.")  # embeddings lie the usual way in all layouts


class MlcSource(HuggingFaceSource):
    """A folder with mlc-chat-config.json, ours or one that MLC LLM's own tool wrote."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = read(path)
        self.settings = as_hugging_face(read_json(path / NAME))
        self.arch, self.numbers = numbers_from_hf(self.settings)
        self.config = self.numbers.model_config(self.arch)
        self.stated = self.folder.metadata
        self.files = sorted({path / stored.file for stored in self.folder.tensors.values()})
        self.tensors = _tensors(self)

    def close(self) -> None:
        """Nothing is kept open."""


@dataclass(frozen=True, slots=True)
class _Matrix:
    """A matrix or a vector under MLC LLM's name, read a few rows at a time."""

    folder: MlcFolder
    parts: Parts
    name: str  # ends in "weight" or "bias"
    columns: int

    @property
    def quant(self) -> Quant | None:
        """How it is quantised, None if it is not."""
        return self.folder.quant if self._codes in self.folder.tensors else None

    @property
    def dtype(self) -> str:
        """Of its values, or of its scales."""
        return self.folder.tensor(self._scales if self.quant else self.name).dtype

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of what is stored: codes and scales, or the values."""
        names = (self._codes, self._scales) if self.quant else (self.name,)
        return [self._stored(name).shape for name in names]

    def expected(self, rows: int, rank: int) -> list[tuple[int, ...]]:
        """Returns what ``shapes`` should be of so many rows."""
        if self.quant is None:
            return [(rows,) if rank == 1 else (rows, self.columns)]
        groups = self.quant.groups(self.columns)
        shapes = [(rows, groups * self.quant.words_per_group), (rows, groups)]
        return [shape[::-1] for shape in shapes] if self._transposed else [*shapes]

    def floats(self, first: int, last: int) -> Floats:
        """Returns rows decoded, (rows, columns)."""
        if self.quant is None:
            return _as_float32(self._read(self.name, first, last), self._stored(self.name))
        words, scales = self.coded(first, last)
        codes = unpack(words, self.quant).astype(np.float32) - np.float32(self.quant.offset)
        grouped = codes.reshape(len(codes), -1, self.quant.group) * scales[:, :, None]
        return grouped.reshape(len(codes), -1)[:, : self.columns]

    def coded(self, first: int, last: int) -> tuple[Words, Floats]:
        """Returns rows as they are: words (rows, words) and scales (rows, groups)."""
        words = self._read(self._codes, first, last)
        scales = _as_float32(self._read(self._scales, first, last), self._stored(self._scales))
        return words, scales

    @property
    def _codes(self) -> str:
        return self.name.removesuffix("weight") + "q_weight"

    @property
    def _scales(self) -> str:
        return self.name.removesuffix("weight") + "q_scale"

    @property
    def _transposed(self) -> bool:
        embedding = self.name.removesuffix("weight").endswith(_TRANSPOSED_NOT)
        return bool(self.quant and self.quant.transposed) and not embedding

    def _stored(self, name: str) -> Stored:
        return self.folder.tensor(name)

    def _read(self, name: str, first: int, last: int) -> NDArray[Any]:
        """Returns rows of a stored tensor, in the type of the file."""
        stored = self._stored(name)
        kind = STORED["bfloat16" if stored.halved else stored.dtype]
        path = self.folder.path / stored.file
        if self._transposed and len(stored.shape) == 2:
            # Rows are columns of the file, of which a piece of every line is read.
            width, height = stored.shape
            lines = [
                self.parts.read(
                    path,
                    stored.offset + (line * height + first) * kind.itemsize,
                    (last - first) * kind.itemsize,
                )
                for line in range(width)
            ]
            turned: NDArray[Any] = np.stack(lines).view(kind).T
            return turned
        row_bytes = prod(stored.shape[1:]) * kind.itemsize
        octets = self.parts.read(
            path, stored.offset + first * row_bytes, (last - first) * row_bytes
        )
        rows: NDArray[Any] = octets.view(kind).reshape(last - first, *stored.shape[1:])
        return rows


def _as_float32(values: NDArray[Any], stored: Stored) -> Floats:
    if stored.halved or stored.dtype == "bfloat16":
        return widened(values)
    return values.astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of a matrix that lie in a tensor of a GGUF, one below the other.

    Attributes:
        matrix: of the folder.
        start: row there.
        count: of rows.
        order: for each row of the GGUF the row among these; None if they are in it.
    """

    matrix: _Matrix
    start: int
    count: int
    order: Rows | None

    def range(self, first: int, last: int) -> tuple[int, int, Rows | slice]:
        """Returns rows of the matrix, and which of those are wanted, in which order."""
        if self.order is None:
            return self.start + first, self.start + last, slice(None)
        wanted = self.order[first:last]
        # Only rows of one head change places, so those wanted lie near each other.
        low, high = int(wanted.min()), int(wanted.max()) + 1
        return self.start + low, self.start + high, wanted - low


@dataclass(frozen=True, slots=True, kw_only=True)
class MlcSourceTensor:
    """A tensor of a GGUF, made of rows of a folder's tensors."""

    name: str
    shape: tuple[int, ...]
    parts: Sequence[_Part]

    @property
    def exact_type(self) -> str:
        """That of the folder if it is 16 bits; of codes, and of vectors, f32."""
        dtypes = {None if part.matrix.quant else part.matrix.dtype for part in self.parts}
        names = {"float16": "f16", "bfloat16": "bf16"}
        only = dtypes.pop() if len(dtypes) == 1 and len(self.shape) > 1 else None
        return names.get(only or "", "f32")

    @property
    def stored_type(self) -> QuantType | None:
        """Q4_0 where codes and scales are as it has them."""
        fits = all(
            part.matrix.quant is not None
            and part.matrix.quant.bits == 4
            and part.matrix.dtype == "float16"
            for part in self.parts
        )
        return get(Q4_0) if fits and self.shape[-1] % _BLOCK == 0 else None

    def stored(self, type: QuantType, first: int, last: int) -> NDArray[np.uint8] | None:
        """Returns the rows as blocks if the type is theirs."""
        if type != self.stored_type:
            return None
        blocks = []
        for part, low, high in self._within(first, last):
            start, end, wanted = part.range(low, high)
            words, scales = part.matrix.coded(start, end)
            assert part.matrix.quant is not None
            blocks.append(to_q4_0(words[wanted], scales[wanted], part.matrix.quant))
        return np.concatenate(blocks)

    def read(self, first: int, last: int) -> NDArray[np.float32]:
        """Returns rows decoded."""
        if len(self.shape) == 1:
            first, last = 0, self.shape[0]
        found = []
        for part, low, high in self._within(first, last):
            start, end, wanted = part.range(low, high)
            found.append(part.matrix.floats(start, end)[wanted])
        values = np.concatenate(found)
        return values.reshape(1, -1) if len(self.shape) == 1 else values

    def _within(self, first: int, last: int) -> list[tuple[_Part, int, int]]:
        """The parts that rows lie in, with the rows counted in each."""
        found = []
        at = 0
        for part in self.parts:
            low, high = max(first - at, 0), min(last - at, part.count)
            if low < high:
                found.append((part, low, high))
            at += part.count
        return found


def _tensors(source: MlcSource) -> list[Tensor]:
    """Finds every tensor of a GGUF in the folder.

    Raises:
        CorruptFileError: a tensor is missing or has the wrong shape; named.
        UnsupportedError: the folder has tensors that the model has no place for; named.
    """
    arch, config, folder = source.arch, source.config, source.folder
    names = checkpoint_names(arch, config, source.settings)
    shapes = {name: file_shape(arch, config, name) for name in names}
    by_file: dict[str, list[EngineTensor]] = defaultdict(list)
    for part in engine_tensors(arch, config, shapes):
        by_file[part.source].append(part)
    counts = {part.name: part.row_count for parts in by_file.values() for part in parts}
    places = _places(source, counts)
    reader = Parts()
    found: list[Tensor] = []
    used: set[str] = set()
    for name, shape in shapes.items():
        parts = []
        for part in sorted(by_file[name], key=lambda part: part.row_start):
            theirs, start, total = places[part.name]
            matrix = _Matrix(folder, reader, theirs, shape[-1])
            if matrix.shapes != matrix.expected(total, len(shape)):
                raise CorruptFileError(f"{folder.path}: tensor {theirs!r} has another shape")
            transform = arch.transforms.get(split_name(part.name)[1])
            order = TRANSFORMS[transform].row_order(config, part.row_count) if transform else None
            parts.append(_Part(matrix, start, part.row_count, order))
            used.add(theirs)
        found.append(MlcSourceTensor(name=name, shape=shape, parts=parts))
    left = sorted(name for name in folder.tensors if _plain(name) not in used)
    if config.tied_output:
        left = [name for name in left if not name.startswith("lm_head.")]  # the embedding's copy
    if left:
        raise UnsupportedError(f"{folder.path}: tensors that {arch.name} does not have: {left[0]}")
    return found


def _places(source: MlcSource, counts: Mapping[str, int]) -> dict[str, tuple[str, int, int]]:
    """Graph's tensor -> the folder's, the row where it begins, and that one's rows."""
    family = family_of(source.arch, source.config)
    blocks = [
        (f"blk.{i}.", family.blocks.format(i), family.block) for i in range(source.config.layers)
    ]
    places: dict[str, tuple[str, int, int]] = {}
    for ours, theirs, joined in [("", "", family.model), *blocks]:
        for kinds, name in joined.items():
            for part in PARTS:
                names = [f"{ours}{kind}{part}" for kind in kinds]
                if all(name in counts for name in names):
                    at, total = 0, sum(counts[name] for name in names)
                    for graph_name in names:
                        places[graph_name] = (family.prefix + theirs + name + part, at, total)
                        at += counts[graph_name]
    return places


def _plain(name: str) -> str:
    return name.replace("q_weight", "weight").replace("q_scale", "weight")
