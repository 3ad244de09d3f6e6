"""The parameters of a library, and which tensors of a folder each is made of.

A library has a matrix where the graph multiplies once: queries, keys and values lie in one, gate
and up in another, whatever the folder does. Matrices lie as kernels read them, in tiles of
``TILE`` rows (see ``compiler/kernels/matrices.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edgeinfer.arch.config import ModelConfig, NormPlacement, QkNorm
from edgeinfer.errors import CorruptFileError, UnsupportedError
from edgeinfer.formats.mlc.families import FAMILIES, GATE_UP, QKV, Family
from edgeinfer.formats.mlc.folder import MlcFolder, Stored

TILE = 16
_NORMS = {
    NormPlacement.PRE: ("attn_norm", "ffn_norm"),
    NormPlacement.POST: ("post_attention_norm", "post_ffw_norm"),
    NormPlacement.SANDWICH: (
        "attn_norm",
        "post_attention_norm",
        "ffn_norm",
        "post_ffw_norm",
    ),
}
_ENDS = ("token_embd", "output")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A tensor that a library is given.

    Attributes:
        name: where the graph has it: "blk.0.attn_qkv.codes".
        sources: names of the folder's tensors, one below the other.
        shape: of the library's.
        dtype: of the library's; bfloat16 is "uint16", its bits.
        kind: "vector", "bias", "floats", "codes" or "scales".
    """

    name: str
    sources: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """A matrix of the graph.

    Attributes:
        rows: with those of all parts.
        columns: of each.
        dtype: of its scales, or of itself where it has no codes.
        group: codes that share a scale, 0 for floats.
        bias: whether a vector is added to the product.
        transposed: the folder has it with rows side by side.
    """

    rows: int
    columns: int
    dtype: str
    group: int
    bias: bool
    transposed: bool

    @property
    def tiles(self) -> int:
        """Of ``TILE`` rows, the last filled up."""
        return -(-self.rows // TILE)

    @property
    def groups(self) -> int:
        """Scales of a row."""
        return -(-self.columns // self.group)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a library is made for.

    Attributes:
        matrices: by name, such as "blk.0.ffn_down".
        vectors: lengths of norms, by name.
        parameters: all tensors, by name.
    """

    matrices: Mapping[str, Matrix]
    vectors: Mapping[str, int]
    parameters: Mapping[str, Parameter]


def contents(folder: MlcFolder) -> Contents:
    """Finds a place in the graph for every tensor of a folder.

    Raises:
        CorruptFileError: a tensor is missing or has another shape.
        UnsupportedError: one is not part of the graph, or has odd sizes.
    """
    return _Finder(folder).contents()


class _Finder:
    def __init__(self, folder: MlcFolder) -> None:
        self.folder, self.config = folder, folder.config
        self.family = FAMILIES[folder.hf_class]
        self.matrices: dict[str, Matrix] = {}
        self.vectors: dict[str, int] = {}
        self.parameters: dict[str, Parameter] = {}

    def contents(self) -> Contents:
        config = self.config
        _check_sizes(config)
        self._matrix("", ("token_embd",), "token_embd", config.vocab_size, config.width)
        for i in range(config.layers):
            self._block(f"blk.{i}.")
        self._vector("", "output_norm", config.width)
        if not config.tied_output:
            self._matrix("", ("output",), "output", config.vocab_size, config.width)
        used = {source for found in self.parameters.values() for source in found.sources}
        unused = sorted(self.folder.tensors.keys() - used)
        if unused:
            raise UnsupportedError(
                f"{self.folder.path}: {self.folder.model_type} has no tensor {unused[0]!r}"
                + (f" and {len(unused) - 1} more" if len(unused) > 1 else "")
            )
        return Contents(matrices=self.matrices, vectors=self.vectors, parameters=self.parameters)

    def _block(self, block: str) -> None:
        config = self.config
        queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
        for norm in _NORMS[config.norm_placement]:
            self._vector(block, norm, config.width)
        if config.qk_norm is not QkNorm.NONE:
            per_head = config.qk_norm is QkNorm.HEAD
            self._vector(block, "attn_q_norm", config.head_dim if per_head else queries)
            self._vector(block, "attn_k_norm", config.head_dim if per_head else keys)
        self._matrix(block, QKV, "attn_qkv", queries + 2 * keys, config.width)
        self._matrix(block, ("attn_output",), "attn_output", config.width, queries)
        self._matrix(block, GATE_UP, "ffn_gate_up", 2 * config.ff_width, config.width)
        self._matrix(block, ("ffn_down",), "ffn_down", config.width, config.ff_width)

    def _vector(self, block: str, kind: str, length: int) -> None:
        (source,) = _names(self.family, block, (kind,))
        self._expect(f"{source}.weight", (length,))
        self._add(f"{block}{kind}", f"{block}{kind}.weight", (f"{source}.weight",), length)
        self.vectors[f"{block}{kind}"] = length

    def _add(self, place: str, name: str, sources: tuple[str, ...], length: int) -> None:
        kind = "bias" if name.endswith(".bias") else "vector"
        self.parameters[name] = Parameter(
            name=name, sources=sources, shape=(length,), dtype="float32", kind=kind
        )

    def _matrix(
        self, block: str, kinds: tuple[str, ...], name: str, rows: int, columns: int
    ) -> None:
        quant, place = self.folder.quant, block + name
        sources = _names(self.family, block, kinds)
        coded = bool(quant.bits) and (quant.ends or name not in _ENDS)
        parts = [f"{source}.{'q_scale' if coded else 'weight'}" for source in sources]
        biases = [f"{source}.bias" for source in sources]
        transposed = coded and quant.transposed and name != "token_embd"
        matrix = Matrix(
            rows=rows,
            columns=columns,
            dtype=_bits(self.folder.tensor(parts[0])),
            group=quant.group if coded else 0,
            bias=biases[0] in self.folder.tensors,
            transposed=transposed,
        )
        self.matrices[place] = matrix
        if coded:
            words = [f"{source}.q_weight" for source in sources]
            each = quant.groups(columns)
            self._rows(words, rows, each * quant.words_per_group, transposed)
            self._rows(parts, rows, each, transposed)
            width = each * quant.group // 8  # codes of three bits are given four
            shapes = [(words, "codes", width, "int32"), (parts, "scales", each, matrix.dtype)]
        else:
            self._rows(parts, rows, columns, False)
            shapes = [(parts, "floats", columns, matrix.dtype)]
        for tensors, kind, width, dtype in shapes:
            self.parameters[f"{place}.{kind}"] = Parameter(
                name=f"{place}.{kind}",
                sources=tuple(tensors),
                shape=(matrix.tiles, width, TILE),
                dtype=dtype,
                kind=kind,
            )
        if matrix.bias:
            held = sum(self.folder.tensor(bias).shape[0] for bias in biases)
            if held != rows:
                raise CorruptFileError(f"{biases[0]!r} has {held} values, expected {rows}")
            self._add(place, f"{place}.bias", tuple(biases), matrix.tiles * TILE)

    def _rows(self, names: list[str], rows: int, columns: int, transposed: bool) -> None:
        """Checks that tensors have so many rows together, of so many columns."""
        shapes = [self.folder.tensor(name).shape for name in names]
        if transposed:
            shapes = [shape[::-1] for shape in shapes]
        found = (sum(shape[0] for shape in shapes), *{shape[1:] for shape in shapes})
        if found != (rows, (columns,)):
            raise CorruptFileError(
                f"{self.folder.path}: {names[0]!r} has the shape {found}, "
                f"expected {(rows, (columns,))}"
            )

    def _expect(self, name: str, shape: tuple[int, ...]) -> None:
        found = self.folder.tensor(name).shape
        if found != shape:
            raise CorruptFileError(
                f"{self.folder.path}: {name!r} has the shape {found}, expected {shape}"
            )


def _names(family: Family, block: str, kinds: tuple[str, ...]) -> Iterator[str] | list[str]:
    """What a folder calls tensors of the graph: one that joins them all, or each its own."""
    names = family.block if block else family.model
    prefix = family.prefix
    if block:
        prefix += family.blocks.format(block.split(".")[1])
    parts = [kinds] if kinds in names else [(kind,) for kind in kinds]
    return [prefix + names[part] for part in parts]


def _bits(tensor: Stored) -> str:
    """The type in memory: as it lies in the file, where bfloat16 is its bits."""
    return "uint16" if tensor.halved or tensor.dtype == "bfloat16" else tensor.dtype


def _check_sizes(config: ModelConfig) -> None:
    sizes = {"width": config.width, "ff_width": config.ff_width, "head_dim": config.head_dim}
    for name, size in sizes.items():
        if size % TILE:
            raise UnsupportedError(
                f"the backend 'mlc' computes vectors of {TILE} numbers; {name} is {size}"
            )
