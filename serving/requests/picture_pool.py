"""Pictures of requests and answers, coded in threads of their own, off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import isfinite
from time import monotonic
from typing import Any, TypeVar

import numpy as np

from serving import pictures
from serving.calls import Array
from serving.catalog import PublicModel
from serving.errors import Code, ServingError
from serving.manifest import Manifest
from serving.observing.metrics import Metrics
from serving.observing.tracing import Traced, current, exemplar, span
from serving.pb import image_generation_pb2 as pb
from serving.requests import checks

T = TypeVar("T")

_FEW_VALUES = 8192
_AT_ONCE_BYTES = 65_536  # so few pixels take less time to convert than a thread takes to be woken


class PicturePool:
    """Threads that decode and encode."""

    def __init__(self, threads: int, metrics: Metrics) -> None:
        self._metrics = metrics
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="pictures")

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Anything that takes its time."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def decode(
        self, images: Sequence[pb.Image], model: PublicModel, graph: Manifest, max_pixels: int
    ) -> list[Array]:
        """Images of a request as the graph takes them, of `max_pixels` in all; errors name the image."""
        with span("decode"):
            return await self.run(_decode, images, model, graph, max_pixels)

    async def encode(
        self, images: Sequence[Array] | Array, graph: Manifest, image_format: int
    ) -> list[pb.Image]:
        """Images that a graph made, as they are answered."""
        if self.at_once(_size(images), image_format):
            return self.encode_at_once(images, graph, image_format, current())
        began = monotonic()
        with span("encode"):
            encoded = await self.run(_encode, images, graph.value_range, image_format)
        self._encoded(image_format, began, current())
        return encoded

    def at_once(self, size: int, image_format: int) -> bool:
        """Whether tensors of so many bytes are encoded in less time than a thread takes to be woken."""
        return image_format == pb.IMAGE_FORMAT_RAW_U8 and size <= _AT_ONCE_BYTES

    def encode_at_once(
        self, images: Sequence[Array] | Array, graph: Manifest, image_format: int, traced: Traced | None
    ) -> list[pb.Image]:
        """Encodes such images here and now, on behalf of a request that is traced or not."""
        began = monotonic()
        with span("encode", traced):
            encoded = _encode(images, graph.value_range, image_format)
        self._encoded(image_format, began, traced)
        return encoded

    def _encoded(self, image_format: int, began: float, traced: Traced | None) -> None:
        name = pictures.format_name(image_format)
        self._metrics.encoded(name, monotonic() - began, exemplar(traced))

    async def sheet(self, images: Sequence[pb.Image], image_format: int) -> bytes:
        """One picture of these: a single one as it is, several as a contact sheet."""
        return await self.run(_sheet, images, image_format)

    def close(self) -> None:
        """Waits for what is being coded."""
        self._threads.shutdown(cancel_futures=True)


def _decode(images: Sequence[pb.Image], model: PublicModel, graph: Manifest, max_pixels: int) -> list[Array]:
    spec = graph.input("image")
    assert spec is not None, "checked when the catalog was made"
    tensors = []
    left = max_pixels
    for place, image in enumerate(images):
        field = f"images[{place}]"
        pixels = pictures.decode(image, field=field, channels=spec.shape[0], max_pixels=left)
        left -= pixels.shape[0] * pixels.shape[1]
        checks.image_size(field, pixels, spec, model)
        tensors.append(pictures.to_tensor(pixels, graph.value_range))
    return tensors


def _encode(
    images: Sequence[Array] | Array, value_range: tuple[float, float], image_format: int
) -> list[pb.Image]:
    encoded: list[pb.Image] = []
    for stack in _stacks(images):
        if not _finite(stack):
            place = len(encoded) + int(np.isfinite(stack).all(axis=(1, 2, 3)).argmin())
            raise ServingError(
                Code.INTERNAL,
                f"image {place} came out with values that are not finite: try less guidance or more steps",
            )
        pixels = pictures.to_pixels(stack, value_range)
        encoded += [pictures.encode(pixels[place], image_format) for place in range(len(pixels))]
    return encoded


def _finite(stack: Array) -> bool:
    """Whether all values are finite. Of few values the sum of squares tells in one go, unless finite ones are
    so large that it is not; of many it would be taken by threads of the BLAS library."""
    if stack.size <= _FEW_VALUES and isfinite(np.vdot(stack, stack)):
        return True
    return bool(np.isfinite(stack).all())


def _size(images: Sequence[Array] | Array) -> int:
    """Bytes of images."""
    return images.nbytes if isinstance(images, np.ndarray) else sum(image.nbytes for image in images)


def _stacks(images: Sequence[Array] | Array) -> Iterator[Array]:
    """The images [some, channels, height, width]: small ones of one size together, others one by one."""
    if not isinstance(images, np.ndarray):
        yield from (image[None] for image in images)
        return
    if images.nbytes <= _AT_ONCE_BYTES:
        yield images
        return
    together = max(1, _AT_ONCE_BYTES // images[0].nbytes)
    for start in range(0, len(images), together):
        yield images[start : start + together]


def _sheet(images: Sequence[pb.Image], image_format: int) -> bytes:
    pixels = [
        pictures.decode(image, field="images", channels=3, max_pixels=image.width * image.height)
        for image in images
    ]
    sheet = pixels[0] if len(pixels) == 1 else pictures.contact_sheet(pixels)
    return pictures.encode(sheet, image_format).data
