"""A checked request to explore latent space: its points, its path, and the program that draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from serving import pictures
from serving.calls import Array, Program
from serving.catalog import PublicModel
from serving.errors import invalid
from serving.manifest import Manifest, TensorSpec
from serving.noise import Stream, normal
from serving.pb import image_generation_pb2 as pb
from serving.programs.latents import Path, Pictured, arc, arithmetic, explore, line, traversal
from serving.requests import checks

DEFAULT_COUNT = 8
"""Images along a path, where the request does not say."""
_DEFAULT_REACH = 3.0


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """A path through the latent space of a model."""

    decoder: Manifest
    """The graph that draws it."""
    encoder: Manifest | None
    """The graph that encodes points given as pictures."""
    points: Sequence[Array | Pictured]
    """Points that the path is made of."""
    path: Path
    """From points to the latents along the path."""
    count: int
    """Number of images along it."""
    class_id: int | None
    """Class of all of them."""
    image_format: int
    """Format of the answer."""

    @property
    def rows(self) -> int:
        """Rows of its largest call."""
        return max(self.count, len(self.points))

    def program(self) -> Program[tuple[Array, Array]]:
        """The program that draws it."""
        return explore(self.decoder, self.encoder, self.points, self.path, self.class_id)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a request may ask of the gateway."""

    max_count: int
    """Most images along a path."""
    max_images: int
    """Most points of an arithmetic."""
    max_image_pixels: int
    """Most pixels of all pictures of a request."""


def plan_exploration(request: pb.ExploreLatentsRequest, model: PublicModel, bounds: Bounds) -> Exploration:
    """The request, checked, its pictures decoded; INVALID_ARGUMENT names the field at fault."""
    decoder = model.drawn
    assert decoder is not None, "a model with a latent has a graph that draws it"
    which = request.WhichOneof("path")
    count = checks.whole("count", request.count, 1, bounds.max_count, default=DEFAULT_COUNT)
    path: Path
    if which == "interpolation":
        ends = {"from": getattr(request.interpolation, "from"), "to": request.interpolation.to}
        given = {f"interpolation.{name}": point for name, point in ends.items()}
        path = partial(line if request.interpolation.linear else arc, count=count)
    elif which == "traversal":
        given = {"traversal.from": getattr(request.traversal, "from")}
        path = _traversal(request.traversal, model, count)
    elif which == "arithmetic":
        plus, minus = request.arithmetic.plus, request.arithmetic.minus
        checks.number_of("arithmetic.plus", [*plus, *minus], bounds.max_images)
        if request.count > 1:
            raise invalid("count", f"count {request.count}: arithmetic gives one image, so leave count out")
        given = {f"arithmetic.plus[{i}]": point for i, point in enumerate(plus)}
        given |= {f"arithmetic.minus[{i}]": point for i, point in enumerate(minus)}
        count = 1
        path = partial(arithmetic, plus=len(plus))
    else:
        raise invalid("path", "no path is given: set interpolation, traversal or arithmetic")
    return Exploration(
        decoder=decoder,
        encoder=model.graphs.get("encoder"),
        points=_points(given, model, bounds.max_image_pixels),
        path=path,
        count=count,
        class_id=checks.required_class_id(request, model, decoder),
        image_format=checks.image_format(request.format),
    )


def latent_message(latent: Array) -> pb.Latent:
    """A latent as clients get it: little-endian float32."""
    return pb.Latent(data=latent.astype("<f4").tobytes(), shape=latent.shape)


def _traversal(asked: pb.Traversal, model: PublicModel, count: int) -> Path:
    dimensions = int(np.prod(_spec(model).shape))
    if not 0 <= asked.dimension < dimensions:
        raise invalid(
            "traversal.dimension",
            f"dimension {asked.dimension} is out of range: {model.name}'s latents have 0 to {dimensions - 1}",
        )
    low, high = asked.low, asked.high
    if low == high == 0:
        low, high = -_DEFAULT_REACH, _DEFAULT_REACH
    for name, value in (("low", low), ("high", high)):
        checks.real(f"traversal.{name}", value, -100, 100)
    return partial(traversal, dimension=asked.dimension, low=low, high=high, count=count)


def _points(
    given: Mapping[str, pb.LatentPoint], model: PublicModel, max_pixels: int
) -> list[Array | Pictured]:
    points, left = [], max_pixels
    for field, asked in given.items():
        point = _point(field, asked, model, left)
        if isinstance(point, Pictured):
            left -= point.image.shape[1] * point.image.shape[2]
        points.append(point)
    return points


def _point(field: str, point: pb.LatentPoint, model: PublicModel, max_pixels: int) -> Array | Pictured:
    which = point.WhichOneof("point")
    if which == "latent":
        return checks.latent(f"{field}.latent", point.latent, _spec(model), model)
    if which == "seed":
        (drawn,) = normal(point.seed, 1, _spec(model).shape, Stream.PRIOR)
        return np.asarray(drawn, np.float32)
    if which != "image":
        raise invalid(field, f"{field} is not given: set its latent, image or seed")
    encoder = model.graphs.get("encoder")
    if encoder is None:
        raise invalid(f"{field}.image", f"{model.name} has no encoder: give a latent or a seed")
    spec = encoder.input("image")
    assert spec is not None, "checked when the catalog was made"
    pixels = pictures.decode(
        point.image, field=f"{field}.image", channels=spec.shape[0], max_pixels=max_pixels
    )
    checks.image_size(f"{field}.image", pixels, spec, model)
    return Pictured(image=pictures.to_tensor(pixels, encoder.value_range))


def _spec(model: PublicModel) -> TensorSpec:
    assert model.latent is not None, "asked only of models with a latent"
    return model.latent
