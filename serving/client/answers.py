"""What clients get: images as PIL and numpy, and what the gateway did to make them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.pb import image_generation_pb2 as pb

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images, in the order of the request."""

    images: tuple[Image.Image, ...]
    """The pictures."""
    run: pb.RunInfo
    """What was done, the seed among it, so that the same can be had again."""
    latents: NDArray[np.float32] | None = None
    """The points of latent space that they were decoded from, [count, ...], where these were walked."""

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Image.Image]:
        return iter(self.images)

    def __getitem__(self, index: int) -> Image.Image:
        return self.images[index]

    @cached_property
    def arrays(self) -> NDArray[np.uint8]:
        """The images as one array, [count, height, width, channels], where they are of one size."""
        stacked = np.stack([np.asarray(image, dtype=np.uint8) for image in self.images])
        return stacked if stacked.ndim == 4 else stacked[..., np.newaxis]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a stream has come."""

    step: int
    """Steps done."""
    steps: int
    """Steps in all."""
    previews: tuple[Image.Image, ...] = ()
    """The present estimate of every image, where previews were asked for."""


def read_images(
    images: Iterable[pb.Image], run: pb.RunInfo, latents: Iterable[pb.Latent] | None = None
) -> Images:
    """The images of an answer."""
    points = None if latents is None else read_latents(latents)
    return Images(images=tuple(map(read_image, images)), run=run, latents=points)


def read_event(event: pb.GenerateEvent) -> Progress | Images:
    """One event of a stream."""
    if event.WhichOneof("event") == "result":
        return read_images(event.result.images, event.result.run)
    progress = event.progress
    return Progress(
        step=progress.step, steps=progress.steps, previews=tuple(map(read_image, progress.previews))
    )


def read_image(image: pb.Image) -> Image.Image:
    """An image of an answer, raw or encoded."""
    if image.format == pb.IMAGE_FORMAT_RAW_U8:
        return Image.frombytes(_MODES[image.channels], (image.width, image.height), image.data)
    decoded = Image.open(io.BytesIO(image.data))
    decoded.load()
    return decoded


def read_latents(latents: Iterable[pb.Latent]) -> NDArray[np.float32]:
    """Latents of an answer as one array, [count, ...]."""
    arrays = [np.frombuffer(latent.data, "<f4").reshape(tuple(latent.shape)) for latent in latents]
    return np.stack(arrays) if arrays else np.zeros((0,), np.float32)
