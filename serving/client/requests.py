"""What clients send: pictures and latents from PIL, numpy and files, as messages of the proto."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.pb import image_generation_pb2 as pb

Picture: TypeAlias = Image.Image | NDArray[np.uint8] | Path | bytes
"""A picture: PIL image, array [height, width] or [height, width, channels] of bytes, file, or its content."""

Point: TypeAlias = NDArray[np.float32] | int | Image.Image | Path
"""A point of latent space: a latent, the seed it is drawn with, or a picture to encode."""


@dataclass(frozen=True, kw_only=True)
class Interpolation:
    """From one point of latent space to another."""

    start: Point
    """Where the path begins."""
    end: Point
    """Where it ends."""
    linear: bool = False
    """Whether the path is a line; else it is an arc of the sphere that the prior lives on."""


@dataclass(frozen=True, kw_only=True)
class Traversal:
    """Along one dimension of latent space through a point."""

    start: Point
    """The point, whose other dimensions stay."""
    dimension: int
    """The dimension, from 0."""
    low: float = -3.0
    """Its first value."""
    high: float = 3.0
    """Its last value."""


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """The sum of some points of latent space less others."""

    plus: Sequence[Point]
    """Points that are added."""
    minus: Sequence[Point] = ()
    """Points that are subtracted."""


Walk: TypeAlias = Interpolation | Traversal | Arithmetic


def generate_request(
    model: str,
    *,
    version: int,
    count: int,
    class_label: str | None,
    class_id: int | None,
    seed: int | None,
    steps: int | None,
    guidance_scale: float | None,
    sampler: str,
    truncation: float | None,
    eta: float | None,
    preview_every: int = 0,
) -> pb.GenerateImagesRequest:
    """A request for images; what is None is left to the model."""
    return pb.GenerateImagesRequest(
        model=model,
        version=version,
        count=count,
        seed=seed,
        steps=steps,
        guidance_scale=guidance_scale,
        sampler=sampler,
        truncation=truncation,
        eta=eta,
        preview_every=preview_every,
        format=pb.IMAGE_FORMAT_RAW_U8,
        **condition(class_label, class_id),
    )


def condition(class_label: str | None, class_id: int | None) -> dict[str, Any]:
    """The class of a request, by label or by id."""
    if class_label is not None and class_id is not None:
        raise ValueError(f"class_label {class_label!r} and class_id {class_id} are both given: give one")
    if class_label is not None:
        return {"class_label": class_label}
    return {} if class_id is None else {"class_id": class_id}


def explore_request(
    model: str, walk: Walk, *, count: int, class_label: str | None, class_id: int | None, version: int
) -> pb.ExploreLatentsRequest:
    """A request for the images along a walk through latent space."""
    request = pb.ExploreLatentsRequest(
        model=model,
        version=version,
        count=0 if isinstance(walk, Arithmetic) else count,
        format=pb.IMAGE_FORMAT_RAW_U8,
        **condition(class_label, class_id),
    )
    if isinstance(walk, Interpolation):
        # `from` is a word of Python's, so the field has to be named in a string.
        getattr(request.interpolation, "from").CopyFrom(_point(walk.start))
        request.interpolation.to.CopyFrom(_point(walk.end))
        request.interpolation.linear = walk.linear
    elif isinstance(walk, Traversal):
        request.traversal.dimension = walk.dimension
        request.traversal.low, request.traversal.high = walk.low, walk.high
        getattr(request.traversal, "from").CopyFrom(_point(walk.start))
    else:
        request.arithmetic.plus.extend(map(_point, walk.plus))
        request.arithmetic.minus.extend(map(_point, walk.minus))
    return request


def to_images(pictures: Picture | Iterable[Picture]) -> list[pb.Image]:
    """One picture or several, as messages."""
    if isinstance(pictures, Image.Image | Path | bytes) or (
        isinstance(pictures, np.ndarray) and pictures.ndim < 4
    ):
        return [to_image(pictures)]
    return [to_image(picture) for picture in pictures]


def to_image(picture: Picture) -> pb.Image:
    """A picture as a message: files as they are, PIL images as PNG, arrays as raw bytes."""
    if isinstance(picture, Path):
        return pb.Image(data=picture.read_bytes())
    if isinstance(picture, bytes):
        return pb.Image(data=picture)
    if isinstance(picture, Image.Image):
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", compress_level=1)
        return pb.Image(data=buffer.getvalue(), format=pb.IMAGE_FORMAT_PNG)
    array = np.asarray(picture)
    if array.dtype != np.uint8 or array.ndim not in (2, 3):
        raise ValueError(
            f"an array of {array.dtype} and shape {list(array.shape)} is no picture: give uint8, "
            "[height, width] or [height, width, channels]"
        )
    height, width, channels = (*array.shape, 1)[:3]
    return pb.Image(
        data=np.ascontiguousarray(array).tobytes(),
        format=pb.IMAGE_FORMAT_RAW_U8,
        width=width,
        height=height,
        channels=channels,
    )


def to_latent(values: NDArray[np.float32]) -> pb.Latent:
    """A latent as a message, little-endian float32."""
    array = np.ascontiguousarray(values, dtype="<f4")
    return pb.Latent(data=array.tobytes(), shape=array.shape)


def _point(point: Point) -> pb.LatentPoint:
    if isinstance(point, int):
        return pb.LatentPoint(seed=point)
    if isinstance(point, np.ndarray):
        return pb.LatentPoint(latent=to_latent(point))
    return pb.LatentPoint(image=to_image(point))
