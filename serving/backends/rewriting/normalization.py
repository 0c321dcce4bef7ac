"""Group normalisations with what is done to each channel after them, in one pass instead of up to four.

torch's exporter writes GroupNorm (Wu and He 2018) as an InstanceNormalization of the groups, then a Mul and
an Add for its own weights, and what a model modulates by its conditions (FiLM, Perez et al. 2018; adaptive
group normalisation, Dhariwal and Nichol 2021) as one more of each. All of that is one scale and one shift
for each channel, or for each channel of each image: a BatchNormalization whose mean is 0 and variance 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import numpy as np
import onnx
from numpy.typing import NDArray

from serving.backends.rewriting.graph import Graph, attribute, other_input
from serving.backends.rewriting.linear import Linear, Weights, linear, per_feature

_IMAGES = 4  # axes of [rows, channels, height, width]


@dataclass(frozen=True, kw_only=True)
class _Normalized:
    """Groups that have been normalised, as they are and as images again."""

    groups: str
    """[rows, groups, values]."""
    images: str
    """[rows, channels, height, width]."""
    shape: tuple[int, int, int]
    """Channels, height and width."""


@dataclass
class _Units:
    """Means of 0 and variances of 1 for the channels of all images, which norms on one source share."""

    known: dict[tuple[str, int], tuple[str, str]] = field(default_factory=dict)

    def of(self, graph: Graph, scale: str, source: str, channels: int) -> tuple[str, str]:
        key = source, channels
        if key not in self.known:
            (length,) = graph.add("Shape", [scale])
            zero, one = (onnx.numpy_helper.from_array(np.array([n], np.float32)) for n in (0, 1))
            (mean,) = graph.add("ConstantOfShape", [length], value=zero)
            (variance,) = graph.add("ConstantOfShape", [length], value=one)
            self.known[key] = mean, variance
        return self.known[key]


def rewrite_normalizations(graph: Graph) -> int:
    """Rewrites every group normalisation of images whose size is known; how many they are."""
    units = _Units()
    return sum(_rewrite(graph, node, units) for node in graph.of("InstanceNormalization"))


def _rewrite(graph: Graph, node: onnx.NodeProto, units: _Units) -> bool:
    normalized = _normalized(graph, node)
    if normalized is None:
        return False
    channels = normalized.shape[0]
    scale, shift = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    end = normalized.images
    while (step := _by_channel(graph, end, channels)) is not None:
        operation, values, end = step
        scale, shift = (scale * values, shift * values) if operation == "Mul" else (scale, shift + values)
    modulation = _modulation(graph, end, channels)
    if modulation is not None:
        by, plus, end = modulation
        plus = by.times(shift).with_added(plus)
        graph.replace(end, _of_each_image(graph, normalized, by.times(scale), plus, units))
    elif end == normalized.images or graph.is_result(end):
        return False
    elif not _into_convolution(graph, normalized, end, scale, shift):
        graph.replace(end, _of_each_channel(graph, normalized, scale, shift))
    return True


def _normalized(graph: Graph, node: onnx.NodeProto) -> _Normalized | None:
    before = graph.maker(node.input[0], "Reshape")
    after = graph.taker(node.output[0], "Reshape")
    if before is None or after is None:
        return None
    images, groups, again = map(graph.shape, (before.input[0], before.output[0], after.output[0]))
    if images is None or groups is None or again is None or len(images) != _IMAGES or len(groups) != 3:
        return None
    lengths = [axis for axis in (*images[1:], *groups[1:]) if axis is not None]
    # Groups of the channels of one image each, and nothing that was put into another order.
    if len(lengths) < 5 or prod(lengths[:3]) != prod(lengths[3:]) or again[1:] != images[1:]:
        return None
    channels, height, width = lengths[:3]
    return _Normalized(groups=node.output[0], images=after.output[0], shape=(channels, height, width))


def _by_channel(graph: Graph, value: str, channels: int) -> tuple[str, Weights, str] | None:
    """What is done next to a value, if that is to multiply or add a constant for each channel."""
    node = graph.taker(value)
    if node is None or node.op_type not in ("Mul", "Add") or len(set(node.input)) != 2:
        return None
    values = per_feature(graph.weight(other_input(node, value)), channels, _IMAGES)
    return None if values is None else (node.op_type, values, node.output[0])


def _modulation(graph: Graph, value: str, channels: int) -> tuple[Linear, Linear, str] | None:
    """The scale and the shift of each channel of each image that come next, and what they end in."""
    mul = graph.taker(value, "Mul")
    add = None if mul is None else graph.taker(mul.output[0], "Add")
    if mul is None or add is None or graph.is_result(add.output[0]):
        return None
    images, operands = graph.shape(value), (other_input(mul, value), other_input(add, mul.output[0]))
    shapes = [graph.shape(operand) or () for operand in operands]
    # What is the same for all images has one row, and theirs are not known.
    if images is None or any(len(shape) != _IMAGES or shape[0] != images[0] for shape in shapes):
        return None
    by, plus = (linear(graph, operand) for operand in operands)
    if by is None or plus is None or by.source != plus.source:
        return None
    return (by, plus, add.output[0]) if len(by.bias) == len(plus.bias) == channels else None


def _of_each_channel(graph: Graph, normalized: _Normalized, scale: Weights, shift: Weights) -> str:
    images = _reshaped(graph, normalized.groups, (0, *normalized.shape))
    unit = (np.zeros_like(scale), np.ones_like(scale))
    inputs = [images, *map(graph.keep, (scale, shift, *unit))]
    return graph.add("BatchNormalization", inputs, epsilon=0.0)[0]


def _of_each_image(graph: Graph, normalized: _Normalized, by: Linear, plus: Linear, units: _Units) -> str:
    """The channels of all images as those of one."""
    channels, height, width = normalized.shape
    scale, shift = (_reshaped(graph, part.add_to(graph), (-1,)) for part in (by, plus))
    mean, variance = units.of(graph, scale, by.source, channels)
    one = _reshaped(graph, normalized.groups, (1, -1, height, width))
    (modulated,) = graph.add("BatchNormalization", [one, scale, shift, mean, variance], epsilon=0.0)
    return _reshaped(graph, modulated, (-1, channels, height, width))


def _into_convolution(
    graph: Graph, normalized: _Normalized, value: str, scale: Weights, shift: Weights
) -> bool:
    """Puts scale and shift into the weights of a convolution of single pixels, where that is all that
    follows: padding would be shifted too."""
    node = graph.taker(value, "Conv")
    weight = None if node is None else graph.weight(node.input[1])
    if node is None or weight is None or node.input[0] != value or graph.is_result(node.output[0]):
        return False
    padded = any(attribute(node, "pads", [0])) or attribute(node, "auto_pad", b"NOTSET") != b"NOTSET"
    if padded or attribute(node, "group", 1) != 1 or set(weight.shape[2:]) != {1}:
        return False
    bias: NDArray[np.float32] | None = np.zeros(len(weight), np.float32)
    if len(node.input) > 2 and node.input[2]:
        bias = graph.weight(node.input[2])
    if bias is None:
        return False
    scaled = weight * scale[None, :, None, None]
    shifted = (bias + weight[:, :, 0, 0] @ shift).astype(np.float32)
    images = _reshaped(graph, normalized.groups, (0, *normalized.shape))
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    (result,) = graph.add("Conv", [images, graph.keep(scaled), graph.keep(shifted)], **attributes)
    graph.replace(node.output[0], result)
    return True


def _reshaped(graph: Graph, value: str, shape: tuple[int, ...]) -> str:
    return graph.add("Reshape", [value, graph.keep(np.array(shape, np.int64))])[0]
