"""Graphs rewritten for the CPU as they are loaded: the same function in fewer passes over memory.

onnxruntime fuses much by itself. What it leaves is what torch's exporter writes at length: a group
normalisation in six nodes and a modulated one in nine, attention that is transposed to and fro. In a small
U-Net that is a fifth of a call. The published file stays as it is, for Triton, TensorRT and whoever reads
it, and a GPU is given that.
"""

from __future__ import annotations

import onnx
from google.protobuf.message import DecodeError

from serving.backends.rewriting.attention import rewrite_attention
from serving.backends.rewriting.graph import Graph
from serving.backends.rewriting.normalization import rewrite_normalizations

_OLDEST = 15
"""Before this opset the operators that are written here had other signatures."""


def rewritten(model: bytes) -> bytes:
    """The ONNX model in fewer nodes, equal up to rounding; as it is where there is nothing to be gained."""
    try:
        proto = onnx.load_model_from_string(model)
    except DecodeError:  # the session says what is wrong with it
        return model
    if not _readable(proto):
        return model
    graph = Graph(proto)
    found = rewrite_normalizations(graph) + rewrite_attention(graph)
    if not found:
        return model
    graph.tidy()
    return bytes(proto.SerializeToString())


def _readable(proto: onnx.ModelProto) -> bool:
    """Whether every node that takes a value is seen: sub-graphs (Loop, If) take them unseen."""
    opset = max((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), default=0)
    nested = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    return opset >= _OLDEST and not any(a.type in nested for n in proto.graph.node for a in n.attribute)
