"""ONNX graphs written node by node."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import compose, helper, numpy_helper


class Nodes:
    """The nodes and initialisers of a graph in the making; every name in it begins with `prefix`."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def add(self, operation: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        """A node of one output; the name of that."""
        output = output or f"{self.prefix}{operation.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """An initialiser; its name."""
        name = self.prefix + name
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def append(self, graph: onnx.GraphProto, name: str, inputs: dict[str, str], output: str) -> str:
        """The nodes and weights of another graph, fed with `inputs`; the name of that output of it."""
        prefix = f"{self.prefix}{name}/"
        for there, here in inputs.items():
            self.add("Identity", [here], prefix + there)
        renamed = compose.add_prefix_graph(graph, prefix)
        self.nodes.extend(renamed.node)
        self.initializers.extend(renamed.initializer)
        return prefix + output
