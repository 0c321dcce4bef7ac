"""Into latent space, through it, and out again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.calls import Array, Program, ask
from serving.manifest import Manifest
from serving.programs.generate import ClassIds, draw

Path = Callable[[Sequence[Array]], Array]
"""Points of latent space to the latents along a path through them [count, ...]."""


@dataclass(frozen=True, kw_only=True)
class Pictured:
    """A point of latent space that is given as a picture."""

    image: Array
    """[channels, height, width]."""


def encode(graph: Manifest, images: Array, class_id: ClassIds | None) -> Program[Array]:
    """Means of the latents of images [count, channels, height, width]."""
    inputs: dict[str, NDArray[np.generic]] = {"image": images}
    if graph.input("class_id") is not None:
        assert class_id is not None, "a conditional graph is asked with classes"
        inputs["class_id"] = class_id[:, None]
    return (yield from ask(graph.graph, inputs, "mean"))


def explore(
    decoder: Manifest,
    encoder: Manifest | None,
    points: Sequence[Array | Pictured],
    path: Path,
    class_id: int | None,
) -> Program[tuple[Array, Array]]:
    """Latents along a path [count, ...], and their pictures; points given as pictures are encoded first."""
    pictured = [point.image for point in points if isinstance(point, Pictured)]
    encoded = iter(())
    if pictured:
        assert encoder is not None, "pictures are refused where nothing encodes them"
        encoded = iter((yield from encode(encoder, np.stack(pictured), _each(class_id, len(pictured)))))
    latents = path([next(encoded) if isinstance(point, Pictured) else point for point in points])
    pictures = yield from draw(decoder, latents, _each(class_id, len(latents)))
    return latents, pictures


def line(ends: Sequence[Array], count: int) -> Array:
    """The straight line between two latents, both ends included."""
    start, end = ends
    weight = _weights(start, count)
    return (1 - weight) * start + weight * end


def arc(ends: Sequence[Array], count: int) -> Array:
    """Spherical interpolation between two latents (Shoemake 1985), their lengths interpolated with them.

    Where they point the same or opposite ways, or one is 0, there is no one arc: it is the straight line.
    """
    start, end = ends
    one, other = start.ravel().astype(np.float64), end.ravel().astype(np.float64)
    lengths = np.linalg.norm(one) * np.linalg.norm(other)
    angle = np.arccos(np.clip(one @ other / lengths, -1, 1)) if lengths > 0 else 0.0
    if np.sin(angle) < 1e-4:
        return line(ends, count)
    weight = _weights(start, count)
    mixed = np.sin((1 - weight) * angle) * start + np.sin(weight * angle) * end
    return np.asarray(mixed / np.sin(angle), np.float32)


def traversal(points: Sequence[Array], dimension: int, low: float, high: float, count: int) -> Array:
    """Copies of one latent in which one coordinate (of the flattened latent) goes from low to high."""
    (point,) = points
    latents = np.repeat(point[None], count, axis=0)
    latents.reshape(count, -1)[:, dimension] = np.linspace(low, high, count)
    return latents


def arithmetic(points: Sequence[Array], plus: int) -> Array:
    """The sum of the first `plus` latents less the sum of the others, as the one latent of its path."""
    total = np.sum(points[:plus], axis=0) - np.sum(points[plus:], axis=0)
    return np.asarray(total[None], np.float32)


def _weights(like: Array, count: int) -> Array:
    return np.linspace(0, 1, count, dtype=np.float32).reshape(count, *(1,) * like.ndim)


def _each(class_id: int | None, count: int) -> ClassIds | None:
    return None if class_id is None else np.full(count, class_id, np.int64)
