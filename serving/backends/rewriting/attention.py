"""Attention over the pixels of an image without turning its operands to and fro.

Queries, keys and values come out of one convolution, [rows, 3 · heads, channels, pixels]. torch's attention
wants them as [pixels, channels], so they are transposed and the result is transposed back; onnxruntime
multiplies transposed matrices as fast as others, so they can stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import onnx

from serving.backends.rewriting.graph import Graph, attribute, other_input

_TURN = (0, 1, 3, 2)
_TURN_PACKED = (0, 1, 2, 4, 3)


@dataclass(frozen=True, kw_only=True)
class _Operand:
    """One of several that are packed into a value [rows, parts, heads, channels, pixels]."""

    packed: str
    """The value."""
    part: int
    """Which of the parts it is."""
    turned: bool
    """Whether it is taken as [pixels, channels]."""
    scale: float = 1.0
    """By what it is multiplied."""


def rewrite_attention(graph: Graph) -> int:
    """Rewrites every attention between operands that are packed in one value; how many they are."""
    return sum(_rewrite(graph, node) for node in graph.of("Softmax"))


def _rewrite(graph: Graph, softmax: onnx.NodeProto) -> bool:
    scores = graph.maker(softmax.input[0], "MatMul")
    mixed = graph.taker(softmax.output[0], "MatMul")
    back = None if mixed is None else graph.taker(mixed.output[0], "Transpose")
    if scores is None or mixed is None or back is None or mixed.input[0] != softmax.output[0]:
        return False
    if tuple(attribute(back, "perm", ())) != _TURN or attribute(softmax, "axis", -1) not in (-1, 3):
        return False
    operands = [_operand(graph, name) for name in (*scores.input, mixed.input[1])]
    packed = _packed_alike(graph, operands)
    if packed is None or graph.is_result(back.output[0]):
        return False
    query, key, value = (operand for operand in operands if operand is not None)
    if (query.turned, key.turned, value.turned) != (True, False, True) or value.scale != 1:
        return False
    unpacked, (parts, heads, channels, pixels) = packed
    flat = graph.keep(np.array((0, parts * heads, channels, pixels), np.int64))
    (together,) = graph.add("Reshape", [unpacked, flat])
    lengths = graph.keep(np.full(parts, heads, np.int64))
    split = graph.add("Split", [together, lengths], outputs=parts, axis=1)
    (queries,) = graph.add("Transpose", [split[query.part]], perm=_TURN)
    (products,) = graph.add("MatMul", [queries, split[key.part]])
    scale = graph.keep(np.array(query.scale * key.scale, np.float32))
    (scaled,) = graph.add("Mul", [products, scale])
    (weights,) = graph.add("Softmax", [scaled], axis=-1)
    (turned,) = graph.add("Transpose", [weights], perm=_TURN)
    (attended,) = graph.add("MatMul", [split[value.part], turned])
    graph.replace(back.output[0], attended)
    return True


def _packed_alike(graph: Graph, operands: Sequence[_Operand | None]) -> tuple[str, tuple[int, ...]] | None:
    """The images out of which all operands are packed, and the parts, heads, channels and pixels of that."""
    packed = {operand.packed if operand else None for operand in operands}
    packing = graph.maker(str(packed.pop()), "Reshape") if len(packed) == 1 else None
    if packing is None:
        return None
    before, after = graph.shape(packing.input[0]), graph.shape(packing.output[0])
    if before is None or after is None or None in (*before[1:], *after[1:]):
        return None
    lengths = tuple(int(axis or 0) for axis in after[1:])
    return (packing.input[0], lengths) if prod(lengths) == prod(axis or 0 for axis in before[1:]) else None


def _operand(graph: Graph, value: str) -> _Operand | None:
    """Where an operand [rows, heads, ...] comes from, through whatever only picks, turns and scales it."""
    node = graph.maker(value)
    if node is None or len(graph.shape(value) or ()) != len(_TURN):
        return None
    match node.op_type:
        case "Mul":
            return _scaled(graph, node)
        case "Transpose" if tuple(attribute(node, "perm", ())) == _TURN:
            return _turned(_operand(graph, node.input[0]))
        case "Reshape":
            before = _turned_in_batches(graph, node)
            return None if before is None else _turned(_operand(graph, before))
        case "Squeeze":
            return _picked(graph, node)
    return None


def _turned(operand: _Operand | None) -> _Operand | None:
    return None if operand is None else replace(operand, turned=not operand.turned)


def _scaled(graph: Graph, node: onnx.NodeProto) -> _Operand | None:
    for value in node.input:
        constant = graph.weight(other_input(node, value))
        operand = _operand(graph, value) if constant is not None and constant.size == 1 else None
        if constant is not None and operand is not None:
            return replace(operand, scale=operand.scale * float(constant.reshape(())))
    return None


def _turned_in_batches(graph: Graph, node: onnx.NodeProto) -> str | None:
    """What is turned by joining rows and heads, turning that, and taking them apart."""
    turn = graph.maker(node.input[0], "Transpose")
    joining = None if turn is None else graph.maker(turn.input[0], "Reshape")
    if turn is None or joining is None or tuple(attribute(turn, "perm", ())) != (0, 2, 1):
        return None
    shapes = [graph.shape(name) for name in (joining.input[0], joining.output[0], node.output[0])]
    before, joined, after = ((s or ())[1:] for s in shapes)
    # In the order of memory rows and heads come first, so equal ends are all that there is to see.
    fits = len(before) == 3 and joined == before[1:] and after == (before[0], before[2], before[1])
    return joining.input[0] if fits and None not in before else None


def _picked(graph: Graph, node: onnx.NodeProto) -> _Operand | None:
    """The part that a Slice of axis 1 picks."""
    pick = graph.maker(node.input[0], "Slice")
    inputs = [node.input[1], *pick.input[1:]] if pick is not None and len(node.input) == 2 else []
    numbers = [graph.constant(name) for name in inputs]
    if pick is None or len(numbers) < 4 or any(n is None or n.size != 1 for n in numbers):
        return None
    squeezed, start, stop, axis, *step = (int(n.item()) for n in numbers if n is not None)
    if (squeezed, axis, stop) != (1, 1, start + 1) or start < 0 or step not in ([], [1]):
        return None
    packed = pick.input[0]
    turn = graph.maker(packed, "Transpose")
    turned = turn is not None and tuple(attribute(turn, "perm", ())) == _TURN_PACKED
    if turn is not None and turned:
        packed = turn.input[0]
    return _Operand(packed=packed, part=start, turned=turned)
