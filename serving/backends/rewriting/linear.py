"""Values that depend linearly on another one through constant weights, as modulations on an embedding do."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from serving.backends.rewriting.graph import Graph, attribute, other_input

Weights = NDArray[np.float32]

_ROW, _IMAGE = 2, 4  # axes of [rows, features] and of [rows, features, 1, 1]


@dataclass(frozen=True, kw_only=True)
class Linear:
    """Features [rows, n] that are `source` · `weight`ᵀ + `bias`."""

    source: str
    """The value they depend on [rows, m]."""
    weight: Weights
    """[n, m]."""
    bias: Weights
    """[n]."""

    def times(self, factor: Weights) -> Linear:
        """Each feature times its factor [n]."""
        return replace(self, weight=self.weight * factor[:, None], bias=self.bias * factor)

    def plus(self, term: Weights) -> Linear:
        """Each feature plus its term [n]."""
        return replace(self, bias=self.bias + term)

    def with_added(self, other: Linear) -> Linear:
        """The sum of two that have the same source."""
        return replace(self, weight=self.weight + other.weight, bias=self.bias + other.bias)

    def add_to(self, graph: Graph) -> str:
        """The node that computes it; its output."""
        inputs = [self.source, graph.keep(self.weight), graph.keep(self.bias)]
        return graph.add("Gemm", inputs, transB=1)[0]


def linear(graph: Graph, value: str) -> Linear | None:
    """How a value [rows, n] or [rows, n, 1, 1] depends on another; None where it does not, or not so."""
    node, shape = graph.maker(value), graph.shape(value)
    if node is None or shape is None or len(shape) not in (_ROW, _IMAGE) or shape[_ROW:] not in ((), (1, 1)):
        return None
    match node.op_type:
        case "Gemm":
            return _gemm(graph, node)
        case "Unsqueeze" | "Reshape" if _keeps_features(graph, node):
            return linear(graph, node.input[0])
        case "Split" if attribute(node, "axis", 0) == 1:
            return _piece(graph, node, value)
        case "Add" | "Mul":
            return _with_constant(graph, node)
    return None


def per_feature(constant: Weights | None, features: int, axes: int) -> Weights | None:
    """A constant as [n], if it has one value for all features or one for each of [rows, n, ...]."""
    if constant is None or constant.ndim > axes:
        return None
    if constant.size == 1:
        return np.full(features, constant.reshape(()), np.float32)
    aligned = (1,) * (axes - constant.ndim) + constant.shape
    return constant.reshape(features) if aligned == (1, features, *(1,) * (axes - 2)) else None


def _gemm(graph: Graph, node: onnx.NodeProto) -> Linear | None:
    weight = graph.weight(node.input[1])
    plain = not attribute(node, "transA", 0) and attribute(node, "alpha", 1.0) == 1
    if weight is None or not plain or attribute(node, "beta", 1.0) != 1:
        return None
    weight = weight if attribute(node, "transB", 0) else weight.T
    bias: Weights | None = np.zeros(len(weight), np.float32)
    if len(node.input) > 2 and node.input[2]:
        bias = per_feature(graph.weight(node.input[2]), len(weight), _ROW)
    return None if bias is None else Linear(source=node.input[0], weight=weight, bias=bias)


def _keeps_features(graph: Graph, node: onnx.NodeProto) -> bool:
    before, after = graph.shape(node.input[0]), graph.shape(node.output[0])
    return (
        before is not None
        and after is not None
        and len(before) in (_ROW, _IMAGE)
        and before[1] is not None
        and before[1] == after[1]
    )


def _piece(graph: Graph, node: onnx.NodeProto, value: str) -> Linear | None:
    whole = linear(graph, node.input[0])
    lengths = [(graph.shape(output) or (None, None))[1] for output in node.output]
    if whole is None or None in lengths:
        return None
    at = list(node.output).index(value)
    start = sum(length or 0 for length in lengths[:at])
    stop = start + (lengths[at] or 0)
    return replace(whole, weight=whole.weight[start:stop], bias=whole.bias[start:stop])


def _with_constant(graph: Graph, node: onnx.NodeProto) -> Linear | None:
    shape = graph.shape(node.output[0])
    for value in node.input:
        weight = graph.weight(other_input(node, value))
        # First the constant: sums of sums would be looked through once for every way down.
        found = linear(graph, value) if weight is not None and graph.shape(value) == shape else None
        if found is None or shape is None:
            continue
        constant = per_feature(weight, len(found.bias), len(shape))
        if constant is not None:
            return found.plus(constant) if node.op_type == "Add" else found.times(constant)
    return None
