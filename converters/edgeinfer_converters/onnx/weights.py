"""The weights of the graph: which source tensors they come from, and in which form they go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from io import BufferedRandom

import numpy as np
from numpy.typing import NDArray

from edgeinfer.arch.tensors import EngineTensor, engine_tensors
from edgeinfer.errors import CorruptFileError
from edgeinfer_converters.checkpoint import GgufSource, HuggingFaceSource
from edgeinfer_converters.onnx.data_file import DataFile, Stored, blocks_of
from edgeinfer_converters.onnx.forms import FLOAT, Form, Recipe, encoded, exact_form, fits, packed
from edgeinfer_converters.quantize import BLOCK_VALUES, check_values
from edgeinfer_converters.tensors import GgufTensor, Tensor, matrix_shape

_ENDS = ("token_embd.weight", "output.weight")

# What is written of a matrix: its name, its form's name and how many bytes.
Written = Callable[[str, str, int], None]


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix in the data file; ``scales`` is None for floats."""

    form: Form
    rows: int
    columns: int
    values: Stored
    scales: Stored | None
    parts: tuple[tuple[Tensor, EngineTensor], ...] = field(repr=False)


@dataclass(slots=True)
class Weights:
    """Declares what the graph asks for, and writes all of it afterwards, a few rows at a time."""

    source: HuggingFaceSource | GgufSource
    recipe: Recipe
    data: DataFile = field(default_factory=DataFile)
    types: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    _parts: dict[str, tuple[Tensor, EngineTensor]] = field(default_factory=dict)
    _matrices: dict[str, Matrix] = field(default_factory=dict)
    _vectors: list[tuple[Stored, list[tuple[Tensor, EngineTensor]]]] = field(default_factory=list)
    _given: list[tuple[Stored, NDArray[np.float32]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        tensors = {tensor.name: tensor for tensor in self.source.tensors}
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        for part in engine_tensors(self.source.arch, self.source.config, shapes):
            self._parts[part.name] = (tensors[part.source], part)

    def __contains__(self, name: str) -> bool:
        return name in self._parts

    @property
    def count(self) -> int:
        """How many tensors will be written."""
        return sum(self.types.values()) + len(self._given)

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

    def form(self, name: str) -> Form:
        """How a matrix will be stored."""
        tensor = self._parts[name][0]
        bits = self.recipe.end_bits if name in _ENDS else self.recipe.bits
        if not bits or not fits(tensor):
            return FLOAT
        return exact_form(tensor, bits) or Form(bits)

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
        if form.bits:
            octets = columns * form.bits // 8
            values = self.data.declare(key, "uint8", (rows, octets))
            shape = (rows, columns // form.block)
            scales = self.data.declare(f"{key}.scales", self.recipe.floats, shape)
        else:
            values = self.data.declare(key, self.recipe.floats, (rows, columns))
            scales = None
        made = Matrix(form, rows, columns, values, scales, parts)
        self._matrices[key] = made
        return made

    def vector(self, *names: str) -> Stored:
        """Declares vectors, one after the other."""
        parts = [self._parts[name] for name in names]
        length = sum(part.row_count for _, part in parts)
        stored = self.data.declare("+".join(names), self.recipe.floats, (length,))
        self._vectors.append((stored, parts))
        self.types[self.recipe.floats] += len(names)
        return stored

    def given(self, name: str, values: NDArray[np.float32]) -> Stored:
        """Declares a table that the exporter makes itself."""
        stored = self.data.declare(name, self.recipe.floats, values.shape)
        self._given.append((stored, values))
        return stored

    def write(self, file: BufferedRandom, *, threads: int, written: Written) -> None:
        """Writes everything that was declared.

        Raises:
            CorruptFileError: a weight is not a finite number.
        """
        for stored, table in self._given:
            written(stored.name, stored.type, self.data.write(file, stored, 0, table))
        for stored, parts in self._vectors:
            at = 0
            for tensor, part in parts:
                row = tensor.read(0, 1)[0, part.row_start : part.row_start + part.row_count]
                check_values(tensor.name, self.recipe.floats, row)
                written(part.name, stored.type, self.data.write(file, stored, at, row))
                at += part.row_count
        for matrix in self._matrices.values():
            at = 0
            for tensor, part in matrix.parts:
                for rows in blocks_of(part.row_count, matrix.columns, BLOCK_VALUES):
                    size = self._write_rows(file, matrix, (tensor, part), at, rows, threads)
                    written(part.name, matrix.form.name, size)
                at += part.row_count

    def _write_rows(
        self,
        file: BufferedRandom,
        matrix: Matrix,
        source: tuple[Tensor, EngineTensor],
        at: int,
        rows: tuple[int, int],
        threads: int,
    ) -> int:
        tensor, part = source
        first, last = (part.row_start + row for row in rows)
        place = at + rows[0]
        if matrix.scales is None:
            values = tensor.read(first, last)
            check_values(tensor.name, self.recipe.floats, values)
            size = self.data.write(file, matrix.values, place, values)
        else:
            codes, scales = encoded(tensor, matrix.form, first, last, threads=threads)
            if not np.isfinite(scales).all():
                raise CorruptFileError(
                    f"tensor {tensor.name!r} has a weight that is not a finite number"
                )
            size = self.data.write(file, matrix.values, place, packed(codes, matrix.form.bits))
            size += self.data.write(file, matrix.scales, place, scales)
        return size

    def _count(self, tensor: Tensor, form: Form) -> None:
        name = form.name if form.bits else self.recipe.floats
        self.types[name] += 1
        is_exact = not form.bits or exact_form(tensor, form.bits) == form
        if isinstance(tensor, GgufTensor) and not tensor.type.is_float and not is_exact:
            self.changes[f"{tensor.type} -> {name}"] += 1


def same_form(weights: Weights, names: Iterable[str]) -> bool:
    """True if matrices can be stored one below the other."""
    forms: Sequence[Form] = [weights.form(name) for name in names]
    return len(set(forms)) == 1
