"""The weights of the graph: which source tensors they come from, and in which form they go."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BufferedRandom
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeinfer.arch.tensors import EngineTensor, engine_tensors
from edgeinfer.errors import CorruptFileError
from edgeinfer_converters.checkpoint import GgufSource, HuggingFaceSource
from edgeinfer_converters.onnx.data_file import DataFile, Stored, blocks_of
from edgeinfer_converters.onnx.forms import (
    FLOAT,
    NEAR,
    Form,
    Recipe,
    encoded,
    fits,
    offset_codes,
    own_form,
    packed,
    unpacked,
)
from edgeinfer_converters.onnx.gguf_blocks import Codes, Floats
from edgeinfer_converters.pipeline import Piece
from edgeinfer_converters.quantize import BLOCK_VALUES, check_values
from edgeinfer_converters.tensors import Tensor, matrix_shape

_ENDS = ("token_embd.weight", "output.weight")
MakeTable = Callable[[], NDArray[np.float32]]
_EXACT = ("position_embd.weight",)  # small, and added to every token


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix in the data file; ``scales`` is None for floats.

    ``offsets`` of its blocks are a matrix themselves, with a column for each block.
    """

    form: Form
    rows: int
    columns: int
    values: Stored
    scales: Stored | None
    offsets: Matrix | None = None


@dataclass(frozen=True, slots=True)
class Use:
    """Rows of a source tensor in a matrix, or values in a vector, from ``at`` on."""

    place: Matrix | Stored
    tensor: Tensor
    part: EngineTensor
    at: int


@dataclass(slots=True)
class Weights:
    """Declares what the graph asks for, and writes all of it afterwards, a few rows at a time."""

    source: HuggingFaceSource | GgufSource
    recipe: Recipe
    importance: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    data: DataFile = field(default_factory=DataFile)
    types: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    rounded: Counter[str] = field(default_factory=Counter)
    _parts: dict[str, tuple[Tensor, EngineTensor]] = field(default_factory=dict)
    _matrices: dict[str, Matrix] = field(default_factory=dict)
    _uses: dict[str, list[Use]] = field(default_factory=lambda: defaultdict(list))
    _vectors: dict[str, Stored] = field(default_factory=dict)
    _given: dict[str, tuple[Stored, MakeTable]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tensors = {tensor.name: tensor for tensor in self.source.tensors}
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        for part in engine_tensors(self.source.arch, self.source.config, shapes):
            self._parts[part.name] = (tensors[part.source], part)

    def __contains__(self, name: str) -> bool:
        return name in self._parts

    @property
    def nbytes(self) -> int:
        """How many bytes will be written."""
        return sum(stored.nbytes for stored in self.data.tensors)

    def matrices(self) -> dict[str, tuple[str, tuple[int, int]]]:
        """The type and the shape of each matrix that was declared, by name."""
        return {
            name: (m.form.name if m.form.bits else self.recipe.floats, (m.rows, m.columns))
            for name, m in self._matrices.items()
        }

    def matrix_uses(self) -> list[tuple[Matrix, list[Use]]]:
        """Each matrix, and what it is made of."""
        found: dict[int, tuple[Matrix, list[Use]]] = {}
        for uses in self._uses.values():
            for use in uses:
                if isinstance(use.place, Matrix):
                    found.setdefault(id(use.place), (use.place, []))[1].append(use)
        return list(found.values())

    def undeclared(self) -> list[str]:
        """The tensors that the graph has not asked for."""
        used = {use.part.name for uses in self._uses.values() for use in uses}
        return [name for name in self._parts if name not in used]

    def form(self, name: str) -> Form:
        """How a matrix will be stored."""
        tensor = self._parts[name][0]
        bits = self.recipe.end_bits if name in _ENDS else self.recipe.bits
        if not bits or name in _EXACT or not fits(tensor):
            return FLOAT
        return own_form(tensor, bits) or Form(bits)

    def matrix(self, *names: str) -> Matrix:
        """Declares matrices, one below the other, which must have the same form."""
        key = "+".join(names)
        if key in self._matrices:
            return self._matrices[key]
        parts = tuple(self._parts[name] for name in names)
        form = self.form(names[0])
        rows, columns = sum(part.row_count for _, part in parts), matrix_shape(parts[0][0])[1]
        for tensor, _ in parts:
            self._count(tensor, form)
        made = self._placed(key, form, rows, columns)
        self._matrices[key] = made
        self._use(made, parts)
        return made

    def _placed(self, key: str, form: Form, rows: int, columns: int) -> Matrix:
        """Gives a matrix its places in the data file."""
        if not form.bits:
            values = self.data.declare(key, self.recipe.floats, (rows, columns))
            return Matrix(form, rows, columns, values, None)
        blocks = -(-columns // form.block)
        octets = blocks * form.block * form.bits // 8
        values = self.data.declare(key, "uint8", (rows, octets))
        scales = self.data.declare(f"{key}.scales", self.recipe.floats, (rows, blocks))
        offsets = (
            self._placed(f"{key}.offsets", Form(8), rows, blocks) if form.has_offsets else None
        )
        return Matrix(form, rows, columns, values, scales, offsets)

    def vector(self, *names: str) -> Stored:
        """Declares vectors, one after the other."""
        key = "+".join(names)
        if key in self._vectors:
            return self._vectors[key]
        parts = [self._parts[name] for name in names]
        length = sum(part.row_count for _, part in parts)
        stored = self.data.declare(key, self.recipe.floats, (length,))
        self._vectors[key] = stored
        self._use(stored, parts)
        self.types[self.recipe.floats] += len(names)
        return stored

    def given(self, name: str, shape: tuple[int, ...], make: MakeTable, type: str = "") -> Stored:
        """Declares a table that the exporter makes itself; of the graph's floats, or a type."""
        if name not in self._given:
            stored = self.data.declare(name, type or self.recipe.floats, shape)
            self._given[name] = (stored, make)
        return self._given[name][0]

    def write(self, file: BufferedRandom, source: str, *, threads: int) -> Iterator[Piece]:
        """Writes everything that was declared of a source tensor.

        Raises:
            CorruptFileError: a weight is not a finite number.
        """
        for use in self._uses.get(source, ()):
            if isinstance(use.place, Matrix):
                yield from self._write_matrix(file, use.place, use, threads)
            else:
                part = use.part
                row = use.tensor.read(0, 1)[0, part.row_start : part.row_start + part.row_count]
                check_values(use.tensor.name, self.recipe.floats, row)
                yield part.name, use.place.type, self.data.write(file, use.place, use.at, row)

    def write_given(self, file: BufferedRandom) -> Iterator[Piece]:
        """Writes the tables that the exporter has made itself."""
        for stored, make in self._given.values():
            yield stored.name, stored.type, self.data.write(file, stored, 0, make())

    def read(
        self, file: BufferedRandom, matrix: Matrix, first: int, last: int
    ) -> NDArray[np.float32]:
        """Reads rows of a matrix back as the kernels multiply them, float32 (rows, columns)."""

        def stored(place: Stored) -> NDArray[Any]:
            return self.data.read(file, place, first, last)

        form, columns = matrix.form, matrix.columns
        if matrix.scales is None:
            return stored(matrix.values).astype(np.float32)
        codes = unpacked(stored(matrix.values), form.bits).astype(np.float32)
        codes -= 2 ** (form.bits - 1)
        values = codes * np.repeat(stored(matrix.scales).astype(np.float32), form.block, axis=1)
        if matrix.offsets is not None:
            offsets = self.read(file, matrix.offsets, first, last)
            values += np.repeat(offsets, form.block, axis=1)
        return values[:, :columns]

    def _use(self, place: Matrix | Stored, parts: Sequence[tuple[Tensor, EngineTensor]]) -> None:
        at = 0
        for tensor, part in parts:
            self._uses[part.source].append(Use(place, tensor, part, at))
            at += part.row_count

    def _write_matrix(
        self, file: BufferedRandom, matrix: Matrix, use: Use, threads: int
    ) -> Iterator[Piece]:
        tensor, part = use.tensor, use.part
        for low, high in blocks_of(part.row_count, matrix.columns, BLOCK_VALUES):
            first, last, place = part.row_start + low, part.row_start + high, use.at + low
            if matrix.scales is None:
                values = tensor.read(first, last)
                check_values(tensor.name, self.recipe.floats, values)
                size = self.data.write(file, matrix.values, place, values)
            else:
                found = encoded(
                    tensor,
                    matrix.form,
                    first,
                    last,
                    threads=threads,
                    importance=self.importance.get(tensor.name),
                )
                size = self._write_codes(file, matrix, place, found.codes, found.scales, tensor)
                if matrix.offsets is not None and found.offsets is not None:
                    codes, scales = offset_codes(found.offsets)
                    size += self._write_codes(file, matrix.offsets, place, codes, scales, tensor)
            yield part.name, matrix.form.name, size

    def _write_codes(
        self,
        file: BufferedRandom,
        matrix: Matrix,
        row: int,
        codes: Codes,
        scales: Floats,
        tensor: Tensor,
    ) -> int:
        if not np.isfinite(scales).all():
            raise CorruptFileError(
                f"tensor {tensor.name!r} has a weight that is not a finite number"
            )
        assert matrix.scales is not None
        size = self.data.write(file, matrix.values, row, packed(codes, matrix.form.bits))
        return size + self.data.write(file, matrix.scales, row, scales)

    def _count(self, tensor: Tensor, form: Form) -> None:
        name = form.name if form.bits else self.recipe.floats
        self.types[name] += 1
        kept = tensor.stored_type
        if kept is None or kept.is_float or not form.bits:
            return
        if own_form(tensor, form.bits) != form:
            self.changes[f"{kept} -> {name}"] += 1
        elif kept.name in NEAR:
            self.rounded[f"{kept} -> {name}"] += 1


def same_form(weights: Weights, names: Iterable[str]) -> bool:
    """True if matrices can be stored one below the other."""
    forms: Sequence[Form] = [weights.form(name) for name in names]
    return len(set(forms)) == 1
