"""Coloured shapes whose every factor is known: shape, colour, size, position, rotation, and stripes.

Each picture is drawn from signed distances, anti-aliased over one pixel, so that the truth can be drawn again
from its factors, in either domain and at any size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data import DataSpec, Splits
from training.data.arrays import ArrayData, digest_of
from training.data.open import in_range, no_path
from training.data.pairs import PairData

Floats = NDArray[np.floating[Any]]

BACKGROUND = (24, 26, 36)
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (235, 52, 52),
    "orange": (250, 140, 20),
    "yellow": (252, 220, 60),
    "green": (50, 190, 80),
    "cyan": (90, 220, 240),
    "blue": (50, 100, 250),
    "purple": (150, 60, 210),
    "pink": (250, 140, 200),
}
STRIPE_SHADE = 0.5
"""Brightness of the dark stripes, of that of the light ones, which keep the plain colour."""
STRIPES = 8
"""Pairs of a light and a dark stripe in the height of a picture. They stand fixed in the frame, so that the
striped picture is a function of the plain one: at 32 pixels a pair is four high, a multiple of any stride."""
SIZE_RANGE = (0.24, 0.38)
"""Half of the extent of a shape, in widths of the picture."""
ROTATION_RANGE = (-30.0, 30.0)
"""Degrees, counter-clockwise."""
MARGIN = 0.06
"""Least distance between a shape and the edge of the picture, in widths of the picture."""
SOURCE = "Drawn by Atelier from known factors; free of any rights."


def circle(x: Floats, y: Floats) -> Floats:
    """Signed distance to a circle."""
    return np.hypot(x, y) - np.float32(0.92)


def square(x: Floats, y: Floats) -> Floats:
    """Signed distance to a square."""
    return np.maximum(np.abs(x), np.abs(y)) - np.float32(0.77)


def triangle(x: Floats, y: Floats) -> Floats:
    """Signed distance to the sides of an equilateral triangle that stands on one of them."""
    slope: Floats = np.abs(x) * np.float32(np.sqrt(0.75)) + y * np.float32(0.5)
    return np.maximum(slope, -y) - np.float32(0.54)


def star(x: Floats, y: Floats) -> Floats:
    """Signed distance to the sides of a five-pointed star: its plane is folded onto half of one point."""
    sector = np.float32(2 * np.pi / 5)
    angle = np.arctan2(x, y)
    folded = np.abs(angle - sector * np.round(angle / sector))
    radius = np.hypot(x, y)
    tip, notch = 1.08, 0.5
    notch_x, notch_y = notch * np.cos(np.pi / 5), notch * np.sin(np.pi / 5)
    length = np.hypot(tip - notch_x, notch_y)
    normal_x, normal_y = np.float32(notch_y / length), np.float32((tip - notch_x) / length)
    across: Floats = radius * (np.cos(folded) * normal_x + np.sin(folded) * normal_y)
    return across - normal_x * np.float32(tip)


def cross(x: Floats, y: Floats) -> Floats:
    """Signed distance to the sides of a cross of two bars."""
    x, y = np.abs(x), np.abs(y)
    return np.maximum(np.maximum(x, y) - np.float32(0.95), np.minimum(x, y) - np.float32(0.32))


def heart(x: Floats, y: Floats) -> Floats:
    """Signed distance to a heart: a square on its corner, and a disc on each of its upper sides."""
    x, y = np.abs(x), y + np.float32(0.12)
    half = np.float32(0.56)
    edge = np.float32(np.sqrt(0.5))
    diamond: Floats = (x + np.abs(y)) * edge - half
    disc: Floats = np.hypot(x - half * edge, y - half * edge) - half
    outline: Floats = np.minimum(diamond, disc)
    return outline


SHAPES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "circle": circle,
    "square": square,
    "triangle": triangle,
    "star": star,
    "cross": cross,
    "heart": heart,
}
"""Shapes by name, as signed distances in a plane where y points up and each fits into [-1.1, 1.1]."""
CLASS_LABELS = tuple(f"{colour} {shape}" for shape in SHAPES for colour in COLOURS)


@dataclass(frozen=True, kw_only=True)
class Factors:
    """All that there is to know of some pictures, each field [count]."""

    shape: NDArray[np.int64]
    """Index into SHAPES."""
    colour: NDArray[np.int64]
    """Index into COLOURS."""
    radius: Floats
    """Half of the extent, in widths of the picture."""
    x: Floats
    """Centre, in widths of the picture from the left."""
    y: Floats
    """Centre, in heights of the picture from the top."""
    rotation: Floats
    """Degrees, counter-clockwise."""

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.shape)

    def take(self, index: NDArray[np.int64] | slice) -> Factors:
        """The factors of some of the pictures."""
        return replace(self, **{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def columns(self) -> dict[str, NDArray[np.int64] | Floats]:
        """The factors by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @property
    def class_id(self) -> NDArray[np.int64]:
        """Index into CLASS_LABELS, [count]."""
        return self.shape * len(COLOURS) + self.colour


def draw_factors(count: int, rng: np.random.Generator) -> Factors:
    """Draws factors: as many pictures of each class as of any other, all else uniform."""
    class_id = rng.permutation(np.arange(count, dtype=np.int64) % len(CLASS_LABELS))
    radius = rng.uniform(*SIZE_RANGE, size=count).astype(np.float32)
    reach = 0.5 - MARGIN - radius * np.float32(1.1)
    return Factors(
        shape=class_id // len(COLOURS),
        colour=class_id % len(COLOURS),
        radius=radius,
        x=(0.5 + reach * rng.uniform(-1, 1, size=count)).astype(np.float32),
        y=(0.5 + reach * rng.uniform(-1, 1, size=count)).astype(np.float32),
        rotation=rng.uniform(*ROTATION_RANGE, size=count).astype(np.float32),
    )


def render(factors: Factors, striped: bool = False, size: int = 32) -> NDArray[np.uint8]:
    """The pictures that have these factors, plain or striped: uint8 [count, 3, size, size]."""
    images = np.empty((len(factors), 3, size, size), np.uint8)
    most = max(1, 2**20 // size**2)
    for start in range(0, len(factors), most):
        part = slice(start, start + most)
        images[part] = _render_part(factors.take(part), striped, size)
    return images


def _render_part(factors: Factors, striped: bool, size: int) -> NDArray[np.uint8]:
    """The pictures of a part that fits into the cache."""
    inside = _coverage(factors, size)[:, np.newaxis]
    colours: Floats = np.array(list(COLOURS.values()), np.float32)[factors.colour][
        :, :, np.newaxis, np.newaxis
    ]
    background = np.array(BACKGROUND, np.float32)[:, np.newaxis, np.newaxis]
    if striped:
        colours = colours * _stripes(size)[:, np.newaxis]
    picture = background + inside * (colours - background)
    return np.rint(picture).astype(np.uint8)


def _coverage(factors: Factors, size: int) -> Floats:
    """Share of each pixel that lies inside of the shape, [count, size, size]."""
    centres = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    radius, left, top, rotation = (
        column[:, np.newaxis, np.newaxis]
        for column in (factors.radius, factors.x, factors.y, factors.rotation)
    )
    x = (centres[np.newaxis, np.newaxis, :] - left) / radius
    y = (top - centres[np.newaxis, :, np.newaxis]) / radius
    cos, sin = np.cos(np.deg2rad(rotation)), np.sin(np.deg2rad(rotation))
    x, y = x * cos + y * sin, y * cos - x * sin
    distance = np.empty(x.shape, np.float32)
    for index, outline in enumerate(SHAPES.values()):
        chosen = factors.shape == index
        distance[chosen] = outline(x[chosen], y[chosen])
    inside: Floats = np.clip(np.float32(0.5) - distance * radius * np.float32(size), 0, 1)
    return inside


def _stripes(size: int) -> Floats:
    """Brightness of each row, [size]: light and dark in turn, mixed where a row has a share in both."""
    fine = 16
    phase = (np.arange(size * fine) + 0.5) / (size * fine) * STRIPES % 1.0
    shade: Floats = np.where(phase < 0.5, 1.0, STRIPE_SHADE).reshape(size, fine).mean(1)
    return shade.astype(np.float32)


def open_shapes(
    path: str | None, *, size: int = 32, count: int = 20_000, held_out: int = 4_000, seed: int = 0
) -> Splits:
    """Plain shapes, conditional on colour and shape."""
    no_path("shapes", path)
    _check("shapes", size, count, held_out)
    rng = np.random.default_rng(seed)
    parts = [draw_factors(n, rng) for n in (count, held_out)]
    images = [render(part, size=size) for part in parts]
    spec = DataSpec(
        name="shapes",
        channels=3,
        height=size,
        width=size,
        class_labels=CLASS_LABELS,
        digest=digest_of(images[0], parts[0].class_id),
        count=count,
        options={"size": size, "count": count, "held_out": held_out, "seed": seed},
        source=SOURCE,
    )
    train, held = (
        ArrayData(spec=spec, images=image, labels=part.class_id, attributes=part.columns())
        for image, part in zip(images, parts, strict=True)
    )
    return Splits(train=train, held_out=held)


def open_shapes_stripes(
    path: str | None, *, size: int = 32, count: int = 10_000, held_out: int = 2_000, seed: int = 0
) -> Splits:
    """Plain and striped shapes: no picture in common to train on, the same ones in both domains held out."""
    no_path("shapes-stripes", path)
    _check("shapes-stripes", size, count, held_out)
    rng = np.random.default_rng(seed)
    plain, striped, both = (draw_factors(n, rng) for n in (count, count, held_out))
    images, targets = render(plain, size=size), render(striped, striped=True, size=size)
    spec = DataSpec(
        name="shapes-stripes",
        channels=3,
        height=size,
        width=size,
        domains=("plain", "striped"),
        digest=digest_of(images, targets),
        count=count,
        options={"size": size, "count": count, "held_out": held_out, "seed": seed},
        source=SOURCE,
    )

    def domain(factors: Factors, pictures: NDArray[np.uint8]) -> ArrayData:
        return ArrayData(spec=spec, images=pictures, attributes=factors.columns())

    return Splits(
        train=PairData(spec=spec, first=domain(plain, images), second=domain(striped, targets), paired=False),
        held_out=PairData(
            spec=spec,
            first=domain(both, render(both, size=size)),
            second=domain(both, render(both, striped=True, size=size)),
            paired=True,
        ),
    )


def _check(kind: str, size: int, count: int, held_out: int) -> None:
    """Refuses sizes at which shapes cannot be told, and counts without a picture of each class."""
    in_range(kind, "size", size, 16, 1024)
    in_range(kind, "count", count, len(CLASS_LABELS), 10_000_000)
    in_range(kind, "held_out", held_out, len(CLASS_LABELS), 10_000_000)
