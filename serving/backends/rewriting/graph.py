"""An ONNX graph that is being rewritten: who makes each value, who takes it, and what is constant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from graphlib import TopologicalSorter
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference

Shape = tuple[int | None, ...]
"""Length of each axis; None where it depends on the inputs."""

_PREFIX = "rewritten/"
_SMALL = 64  # elements


class Graph:
    """The graph of a model without sub-graphs. Rules add nodes to it and have them take the place of others.

    What has lost its last taker stays until `tidy`.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._shapes = _shapes(model)
        self._results = {result.name for result in self._graph.output}
        self._weights = {weight.name: weight for weight in self._graph.initializer}
        self._constants: dict[str, NDArray[Any]] = {}
        self._makers: dict[str, onnx.NodeProto] = {}
        self._takers: defaultdict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self._graph.node:
            self._know(node)

    def of(self, operation: str) -> list[onnx.NodeProto]:
        """The nodes of an operator of ONNX."""
        return [node for node in self._graph.node if is_a(node, operation)]

    def shape(self, value: str) -> Shape | None:
        """The shape of a value, as far as it can be inferred."""
        return self._shapes.get(value)

    def maker(self, value: str, operation: str = "") -> onnx.NodeProto | None:
        """The node that makes a value, if it is of the operation."""
        node = self._makers.get(value)
        return node if node is not None and (not operation or is_a(node, operation)) else None

    def taker(self, value: str, operation: str = "") -> onnx.NodeProto | None:
        """The only node that takes a value, if there is one and it is of the operation."""
        takers = self._takers[value]
        if len(takers) != 1 or value in self._results:
            return None
        return takers[0] if not operation or is_a(takers[0], operation) else None

    def constant(self, value: str) -> NDArray[Any] | None:
        """What a value always is."""
        if value not in self._constants:
            maker = self._makers.get(value)
            if value in self._weights:
                self._constants[value] = numpy_helper.to_array(self._weights[value])
            elif maker is not None and is_a(maker, "Constant") and maker.attribute[0].name == "value":
                self._constants[value] = numpy_helper.to_array(maker.attribute[0].t)
        return self._constants.get(value)

    def weight(self, value: str) -> NDArray[np.float32] | None:
        """The same of 32-bit floats, the only ones that are reckoned with here."""
        constant = self.constant(value)
        return constant if constant is not None and constant.dtype == np.float32 else None

    def keep(self, constant: NDArray[Any]) -> str:
        """A new constant; its name."""
        name = f"{_PREFIX}constant_{len(self._weights)}"
        weight = numpy_helper.from_array(np.ascontiguousarray(constant), name)
        self._graph.initializer.append(weight)
        self._weights[name] = weight
        return name

    def add(self, operation: str, inputs: Sequence[str], *, outputs: int = 1, **attributes: Any) -> list[str]:
        """A new node; the names of its outputs."""
        stem = f"{_PREFIX}{operation.lower()}_{len(self._graph.node)}"
        names = [f"{stem}_{number}" for number in range(outputs)]
        self._graph.node.append(helper.make_node(operation, inputs, names, name=stem, **attributes))
        self._know(self._graph.node[-1])
        return names

    def replace(self, value: str, by: str) -> None:
        """Whoever takes a value takes the other one, of the same shape; an output keeps its name."""
        assert value not in self._results, "nobody would give the graph's output"
        if value in self._shapes:
            self._shapes[by] = self._shapes[value]
        for node in self._takers.pop(value, []):
            node.input[:] = [by if name == value else name for name in node.input]
            self._takers[by].append(node)

    def is_result(self, value: str) -> bool:
        """Whether it is an output of the graph."""
        return value in self._results

    def tidy(self) -> None:
        """Without nodes and constants that nobody takes, and in an order in which they can be computed."""
        needed: dict[int, onnx.NodeProto] = {}
        before: dict[int, list[int]] = {}
        wanted = [self._makers[result] for result in self._results if result in self._makers]
        while wanted:
            node = wanted.pop()
            if id(node) in needed:
                continue
            makers = [self._makers[name] for name in node.input if name in self._makers]
            needed[id(node)] = node
            before[id(node)] = [id(maker) for maker in makers]
            wanted += makers
        # By their old places where nothing else decides, so that the same model gives the same bytes.
        places = {id(node): place for place, node in enumerate(self._graph.node) if id(node) in needed}
        sorter = TopologicalSorter({node: before[node] for node in sorted(needed, key=places.__getitem__)})
        nodes = [onnx.NodeProto.FromString(needed[k].SerializeToString()) for k in sorter.static_order()]
        del self._graph.node[:], self._graph.value_info[:]
        self._graph.node.extend(nodes)
        taken = {name for node in nodes for name in node.input} | self._results
        for place in reversed(range(len(self._graph.initializer))):  # in place: weights may be large
            if self._graph.initializer[place].name not in taken:
                del self._graph.initializer[place]

    def _know(self, node: onnx.NodeProto) -> None:
        for name in node.output:
            self._makers[name] = node
        for name in dict.fromkeys(node.input):
            self._takers[name].append(node)


def is_a(node: onnx.NodeProto, operation: str) -> bool:
    """Whether a node is of an operator of ONNX, not of some vendor's of the same name."""
    return node.op_type == operation and node.domain in ("", "ai.onnx")


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """An attribute of a node."""
    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def other_input(node: onnx.NodeProto, value: str) -> str:
    """Of a node's two inputs the one that is not `value`."""
    return str(node.input[1] if node.input[0] == value else node.input[0])


def _shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    graph = shape_inference.infer_shapes(_without_weights(model), data_prop=True).graph
    return {
        info.name: tuple(
            axis.dim_value if axis.HasField("dim_value") else None for axis in info.type.tensor_type.shape.dim
        )
        for info in (*graph.input, *graph.value_info, *graph.output)
        if info.type.tensor_type.HasField("shape")
    }


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the shapes of its weights in place of them: inferring copies a model, and nobody else of
    the process does anything meanwhile. Small constants stay, as they may be shapes themselves."""
    graph = model.graph
    small = [weight for weight in graph.initializer if prod(weight.dims) <= _SMALL]
    known = {value.name for value in graph.input}
    large = [w for w in graph.initializer if prod(w.dims) > _SMALL and w.name not in known]
    shown = helper.make_graph(
        graph.node,
        graph.name,
        [*graph.input, *(helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in large)],
        graph.output,
        small,
    )
    return helper.make_model(shown, opset_imports=model.opset_import, ir_version=model.ir_version)
