"""A graph cut into parts, so that its matrices of floats are in memory some rows at a time.

ONNX Runtime keeps what a session multiplies for as long as there is a session, and half floats
once more as floats. So a matrix of floats becomes an input here, in blocks of rows, and what lies
between two blocks a graph of its own: a block's pages are forgotten before the next is read.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeinfer.device.resident import trim_heap

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

_PRODUCT = "FusedMatMul"
_Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of a matrix in the data file."""

    type: type[np.generic]
    shape: tuple[int, int]
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        return self.shape[0] * self.shape[1] * np.dtype(self.type).itemsize


@dataclass(slots=True)
class _Part:
    nodes: list[NodeProto] = field(default_factory=list)
    blocks: dict[str, Block] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    spent: list[str] = field(default_factory=list)  # values that no later part takes
    session: Any = None


class Parts:
    """Sessions that compute a graph one after the other."""

    def __init__(
        self, model: bytes, most: int, make: Callable[[bytes], Any], data: mmap.mmap
    ) -> None:
        """Cuts a graph, and makes the sessions.

        Args:
            model: the graph.
            most: bytes of matrices of floats in memory at a time.
            make: makes a session of a graph.
            data: the file that the matrices are in.
        """
        import onnx

        whole = onnx.ModelProto.FromString(model)
        self._data = data
        self._parts = list(_cut(whole, most))
        self.has_blocks = any(part.blocks for part in self._parts)
        self._outputs = [value.name for value in whole.graph.output]
        types = _types(whole)
        _connect(self._parts, types, self._outputs)
        for part in self._parts:
            part.session = make(_model(whole, part, types))

    def __call__(self, given: Mapping[str, NDArray[Any]]) -> _Arrays:
        """Computes the outputs, by name."""
        values = dict(given)
        for part in self._parts:
            fed = {name: values[name] for name in part.inputs}
            blocks = {name: self._block(block) for name, block in part.blocks.items()}
            made = part.session.run(part.outputs, fed | blocks)
            values |= zip(part.outputs, made, strict=True)
            del fed, blocks, made
            for name in part.spent:
                del values[name]
            self._forget()
        return {name: values[name] for name in self._outputs}

    def _forget(self) -> None:
        """Gives the memory of blocks back, of what they were cast to, and of products."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._data.madvise(mmap.MADV_DONTNEED)
        trim_heap()

    def _block(self, block: Block) -> NDArray[Any]:
        count = block.shape[0] * block.shape[1]
        return np.frombuffer(self._data, block.type, count, block.offset).reshape(block.shape)


def _cut(model: ModelProto, most: int) -> Iterator[_Part]:
    """Nodes in their order, with at most so many bytes of blocks."""
    matrices = {tensor.name: tensor for tensor in model.graph.initializer}
    part, size = _Part(), 0
    for node in model.graph.node:
        if node.op_type != _PRODUCT:
            part.nodes.append(node)
            continue
        for product, block in _products(node, matrices[node.input[1]], most):
            if block is not None:
                if size and size + block.nbytes > most:
                    yield part
                    part, size = _Part(), 0
                part.blocks[product.input[1]] = block
                size += block.nbytes
            part.nodes.append(product)
    yield part


def _products(
    node: NodeProto, matrix: TensorProto, most: int
) -> Iterator[tuple[NodeProto, Block | None]]:
    """A product as those of blocks of its matrix's rows, and the node that joins them."""
    from onnx import helper

    kind = helper.tensor_dtype_to_np_dtype(matrix.data_type)
    offset = int(next(entry.value for entry in matrix.external_data if entry.key == "offset"))
    rows, columns = matrix.dims
    row_bytes = columns * kind.itemsize
    count = -(-rows * row_bytes // most)
    bounds = [rows * number // count for number in range(count + 1)]
    joined = helper.make_node("Concat", [], node.output, axis=-1)
    for number, (first, last) in enumerate(pairwise(bounds)):
        product = type(node).FromString(node.SerializeToString())
        product.input[1] = f"{matrix.name}.rows.{number}"
        if count > 1:
            product.output[0] = f"{node.output[0]}.rows.{number}"
            joined.input.append(product.output[0])
        yield product, Block(kind.type, (last - first, columns), offset + first * row_bytes)
    if count > 1:
        yield joined, None


def _types(model: ModelProto) -> dict[str, int]:
    """Types of the values that are not of the graph's floats, and of those that are given."""
    from onnx import TensorProto

    found = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    for node in model.graph.node:
        if node.op_type == "Cast":
            found[node.output[0]] = next(a.i for a in node.attribute if a.name == "to")
        elif node.op_type == "Shape":
            found[node.output[0]] = TensorProto.INT64
    found[""] = found["hidden_states"]
    return found


def _connect(parts: Sequence[_Part], types: Mapping[str, int], wanted: Sequence[str]) -> None:
    """Finds which values each part takes from others or from outside, and which it gives."""
    made = {output: part for part in parts for node in part.nodes for output in node.output}
    for part in parts:
        for name in dict.fromkeys(name for node in part.nodes for name in node.input):
            source = made.get(name)
            if source is part or (source is None and (not name or name not in types)):
                continue
            part.inputs.append(name)
            if source is not None and name not in source.outputs:
                source.outputs.append(name)
    for name in wanted:
        if name not in made[name].outputs:
            made[name].outputs.append(name)
    later = set(wanted)
    for part in reversed(parts):
        part.spent = [name for name in part.inputs if name not in later]
        later.update(part.inputs)


def _model(whole: ModelProto, part: _Part, types: Mapping[str, int]) -> bytes:
    from onnx import helper

    def values(names: Sequence[str]) -> list[Any]:
        kinds = (types.get(name, types[""]) for name in names)
        return [
            helper.make_tensor_value_info(name, kind, None)
            for name, kind in zip(names, kinds, strict=True)
        ]

    read = {name for node in part.nodes for name in node.input}
    graph = helper.make_graph(
        part.nodes,
        "part",
        values([*part.inputs, *part.blocks]),
        values(part.outputs),
        [tensor for tensor in whole.graph.initializer if tensor.name in read],
    )
    model = helper.make_model(graph, opset_imports=whole.opset_import, ir_version=whole.ir_version)
    octets: bytes = model.SerializeToString()
    return octets
