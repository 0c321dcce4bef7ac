"""Checks of request fields: each returns the value to use, or says what is wrong and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from serving.calls import Array
from serving.catalog import PublicModel
from serving.errors import invalid, one_of
from serving.manifest import Manifest, TensorSpec
from serving.pb import image_generation_pb2 as pb
from serving.pictures import Pixels, known_format


class Conditioned(Protocol):
    """A request with a `condition`: class_id or class_label, and perhaps a prompt."""

    class_id: int
    class_label: str

    def WhichOneof(self, oneof_group: str, /) -> str | None:  # noqa: N802 (protobuf's name)
        """Name of the field that is set."""


def whole(field: str, value: int, low: int, high: int, default: int) -> int:
    """A whole number between bounds; 0 stands for the default."""
    if value == 0:
        return default
    if not low <= value <= high:
        raise invalid(field, f"{field} {value} is out of range: {low} to {high}")
    return value


def real(field: str, value: float, low: float, high: float) -> float:
    """A finite number between bounds."""
    if not (math.isfinite(value) and low <= value <= high):
        raise invalid(field, f"{field} {value:g} is out of range: {low:g} to {high:g}")
    return value


def image_format(value: int) -> int:
    """A format that pictures can be written in."""
    if not known_format(value):
        names = [value.name for value in pb.ImageFormat.DESCRIPTOR.values[1:]]
        raise invalid("format", f"format {value} is not one of {one_of(names)}")
    return value


def class_id(request: Conditioned, model: PublicModel, graph: Manifest) -> int | None:
    """Id of the class that the request asks for, None where it asks for none."""
    asked = request.WhichOneof("condition")
    if asked is None:
        return None
    labels = model.first.class_labels
    if asked == "prompt":
        remedy = f"ask by class_label: {one_of(labels)}" if labels else "leave it out"
        raise invalid("prompt", f"{model.name} takes no prompt; {remedy}")
    if graph.input("class_id") is None:
        raise invalid(asked, f"{model.name} is unconditional: leave {asked} out")
    if asked == "class_id":
        if not 0 <= request.class_id < len(labels):
            raise invalid("class_id", f"class_id {request.class_id} is out of range: 0 to {len(labels) - 1}")
        return request.class_id
    if request.class_label not in labels:
        raise invalid(
            "class_label",
            f"class_label {request.class_label!r} is not one of {model.name}'s labels: "
            f"{one_of(labels, request.class_label)}",
        )
    return labels.index(request.class_label)


def required_class_id(request: Conditioned, model: PublicModel, graph: Manifest) -> int | None:
    """The same, where a graph that takes a class cannot do without."""
    asked = class_id(request, model, graph)
    if asked is None and graph.input("class_id") is not None:
        raise invalid(
            "class_label",
            f"{model.name}'s {graph.role} takes a class: give class_label or class_id, "
            f"one of {one_of(model.first.class_labels)}",
        )
    return asked


def direction(asked: str, model: PublicModel) -> Manifest:
    """The graph of a direction, which may be left out where there is one."""
    if not asked and len(model.directions) == 1:
        asked = model.directions[0]
    if asked not in model.directions:
        said = f"direction {asked!r} is not" if asked else "direction is not given; it is"
        raise invalid("direction", f"{said} one of {model.name}'s: {one_of(model.directions, asked)}")
    return model.graphs[asked]


def number_of(field: str, given: Sequence[object], limit: int) -> None:
    """At least one of a repeated field, and at most `limit`."""
    if not given:
        raise invalid(field, f"{field} is empty: give at least one")
    if len(given) > limit:
        raise invalid(
            field, f"{field} has {len(given)} elements; at most {limit} are taken: send them in parts"
        )


def image_size(field: str, pixels: Pixels, spec: TensorSpec, model: PublicModel) -> None:
    """A picture of a size that the graph takes; the error names the nearest."""
    size = pixels.shape[:2]
    wanted = [_nearest(side, axis, spec.multiple_of) for side, axis in zip(size, spec.shape[1:], strict=True)]
    if list(size) != wanted:
        rule = f"sides that are multiples of {spec.multiple_of}" if -1 in spec.shape else "that size alone"
        raise invalid(
            field,
            f"{field} is {size[1]}×{size[0]}: {model.name} takes {rule}; scale or crop it to "
            f"{wanted[1]}×{wanted[0]}",
        )


def latent(field: str, given: pb.Latent, spec: TensorSpec, model: PublicModel) -> Array:
    """A latent of the model's shape; where the message has no shape, the bytes alone are counted."""
    wanted = list(spec.shape)
    if len(given.data) != 4 * math.prod(wanted) or (given.shape and list(given.shape) != wanted):
        raise invalid(
            field,
            f"{field} has shape {list(given.shape)} and {len(given.data)} bytes: {model.name}'s latents have "
            f"shape {wanted}, little-endian float32, {4 * math.prod(wanted)} bytes",
        )
    values = np.frombuffer(given.data, "<f4").astype(np.float32).reshape(wanted)
    if not np.isfinite(values).all():
        raise invalid(field, f"{field} has values that are not finite")
    return values


def _nearest(side: int, axis: int, multiple_of: int) -> int:
    if axis >= 0:
        return axis
    return max(1, round(side / multiple_of)) * multiple_of
