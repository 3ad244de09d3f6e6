"""A graph under construction: nodes by their operator, weights by their place in the data file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeinfer_converters.onnx.data_file import Stored

if TYPE_CHECKING:
    import onnx_ir as ir

MICROSOFT = "com.microsoft"
_OPSET, _IR_VERSION = 21, 10
_PRODUCER = "edgeinfer"


class Graph:
    """Collects nodes and initializers; ``save`` writes the graph without any weights."""

    def __init__(self, floats: str) -> None:
        import onnx_ir as ir

        self._ir = ir
        self.floats = {"f32": ir.DataType.FLOAT, "f16": ir.DataType.FLOAT16}[floats]
        self._nodes: list[ir.Node] = []
        self._inputs: list[ir.Value] = []
        self._outputs: list[ir.Value] = []
        self._initializers: dict[str, ir.Value] = {}

    def input(self, name: str, type: str, shape: Sequence[int | str]) -> ir.Value:
        """Declares an input; type is "float" for that of the graph's floats, or "int64"."""
        value = self._typed(name, type, shape)
        self._inputs.append(value)
        return value

    def option(self, name: str, default: int) -> ir.Value:
        """Declares an int64 input of one value that need not be given."""
        value = self._typed(name, "int64", [1])
        value.const_value = self._ir.tensor(np.array([default], np.int64), name=name)
        self._inputs.append(value)
        self._initializers[name] = value
        return value

    def output(self, value: ir.Value, name: str, type: str, shape: Sequence[int | str]) -> None:
        """Declares that a value is an output."""
        value.name = name
        value.shape, value.type = self._ir.Shape(shape), self._type(type)
        self._outputs.append(value)

    def weight(self, stored: Stored, shape: Sequence[int] | None = None, name: str = "") -> Any:
        """Refers to a tensor of the data file, perhaps by another shape and name."""
        name = name or stored.name
        if name not in self._initializers:
            tensor = stored.tensor()
            if shape is not None:
                tensor = self._ir.ExternalTensor(
                    tensor.location,
                    tensor.offset,
                    tensor.length,
                    tensor.dtype,
                    shape=self._ir.Shape(shape),
                    name=name,
                )
            self._initializers[name] = self._ir.Value(name=name, const_value=tensor)
        return self._initializers[name]

    def constant(self, value: Any, type: str = "float") -> ir.Value:
        """Returns a small constant: a number, or a list of numbers."""
        dtype = self._type(type).dtype.numpy()
        name = f"const.{type}.{value}".replace(" ", "")
        if name not in self._initializers:
            tensor = self._ir.tensor(np.array(value, dtype), name=name)
            self._initializers[name] = self._ir.Value(name=name, const_value=tensor)
        return self._initializers[name]

    def node(
        self,
        operator: str,
        *inputs: ir.Value | None,
        domain: str = "",
        outputs: int = 1,
        **attributes: Any,
    ) -> Any:
        """Adds a node; returns its output, or a tuple of them."""
        made = self._ir.node(operator, inputs, attributes, domain=domain, num_outputs=outputs)
        made.name = f"{operator}.{len(self._nodes)}"
        for number, output in enumerate(made.outputs):
            output.name = f"{made.name}:{number}"
        self._nodes.append(made)
        return made.outputs[0] if outputs == 1 else made.outputs

    def cast(self, value: ir.Value, type: str) -> ir.Value:
        """Adds a cast; type is "float" for that of the graph's floats, or ONNX's own name."""
        out: ir.Value = self.node("Cast", value, to=int(self._type(type).dtype))
        return out

    def serialized(self, version: str) -> bytes:
        """Returns the model file, which refers to the data file."""
        graph = self._ir.Graph(
            self._inputs,
            self._outputs,
            nodes=self._nodes,
            initializers=list(self._initializers.values()),
            opset_imports={"": _OPSET, MICROSOFT: 1},
            name="decoder",
        )
        model = self._ir.Model(
            graph, ir_version=_IR_VERSION, producer_name=_PRODUCER, producer_version=version
        )
        octets: bytes = self._ir.serde.serialize_model(model).SerializeToString(deterministic=True)
        return octets

    def _typed(self, name: str, type: str, shape: Sequence[int | str]) -> ir.Value:
        return self._ir.Value(name=name, shape=self._ir.Shape(shape), type=self._type(type))

    def _type(self, name: str) -> ir.TensorType:
        dtype = self.floats if name == "float" else self._ir.DataType[name.upper()]
        return self._ir.TensorType(dtype)
