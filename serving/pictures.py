"""Pictures in and out: files and raw bytes to pixels, pixels to tensors, and back.

Pixels are uint8 [height, width, channels]; tensors float32 [channels, height, width] in a value range.
Everything here blocks, and runs in a thread.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from math import ceil, isqrt

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from serving.calls import Array
from serving.errors import ServingError, invalid
from serving.pb import image_generation_pb2 as pb

Pixels = NDArray[np.uint8]

_FORMATS = ("PNG", "JPEG", "WEBP")
_GAP = 2
_LEAST_CELL = 64
_OPTIONS: dict[int, tuple[str, dict[str, int]]] = {
    pb.IMAGE_FORMAT_UNSPECIFIED: ("PNG", {}),
    pb.IMAGE_FORMAT_PNG: ("PNG", {}),
    pb.IMAGE_FORMAT_JPEG: ("JPEG", {"quality": 92}),
    pb.IMAGE_FORMAT_WEBP: ("WEBP", {"quality": 92}),
}

_NAMES = {value: name for name, value in pb.ImageFormat.items()}


def decode(image: pb.Image, *, field: str, channels: int, max_pixels: int) -> Pixels:
    """The pixels of a PNG, JPEG, WebP or raw image, with as many channels as the model takes.

    16-bit, palette, greyscale and rotated images are converted; transparency is laid on white. Errors are
    INVALID_ARGUMENT and name `field`, for example `images[2]`.
    """
    if not image.data:
        raise invalid(field, f"{field} is empty: give the bytes of a PNG, JPEG or WebP in data")
    if image.format == pb.IMAGE_FORMAT_RAW_U8:
        opened = Image.fromarray(_plain(_raw(image, field, max_pixels)))
    else:
        opened = _open(image.data, field, max_pixels)
    converted = _flatten(opened).convert("L" if channels == 1 else "RGB")
    return np.asarray(converted, np.uint8).reshape(converted.height, converted.width, channels)


def encode(pixels: Pixels, image_format: int) -> pb.Image:
    """Pixels as an image message."""
    height, width, channels = pixels.shape
    if image_format == pb.IMAGE_FORMAT_RAW_U8:
        data = pixels.tobytes()
    else:
        name, options = _OPTIONS[image_format]
        file = io.BytesIO()
        Image.fromarray(_plain(pixels)).save(file, name, **options)
        data = file.getvalue()
    shown = _NAMES[image_format or pb.IMAGE_FORMAT_PNG]
    return pb.Image(data=data, format=shown, width=width, height=height, channels=channels)


def known_format(image_format: int) -> bool:
    """Whether `encode` can write it."""
    return image_format in _OPTIONS or image_format == pb.IMAGE_FORMAT_RAW_U8


def format_name(image_format: int) -> str:
    """The format that `encode` writes for it: png, jpeg, webp or raw."""
    return _OPTIONS[image_format][0].lower() if image_format in _OPTIONS else "raw"


def to_tensor(pixels: Pixels, value_range: tuple[float, float]) -> Array:
    """Pixels to a tensor with black and white at the ends of the value range."""
    low, high = value_range
    scaled = pixels.transpose(2, 0, 1).astype(np.float32) * ((high - low) / 255) + low
    return np.ascontiguousarray(scaled)


def to_pixels(tensor: Array, value_range: tuple[float, float]) -> Pixels:
    """Tensors [..., channels, height, width] to pixels [..., height, width, channels]: the nearest of 256
    levels, what lies outside of the range clipped to it."""
    low, high = value_range
    scaled = tensor - low
    scaled *= 255 / (high - low)
    np.rint(scaled, out=scaled)
    np.minimum(np.maximum(scaled, 0, out=scaled), 255, out=scaled)  # np.clip takes longer for small ones
    return scaled.swapaxes(-3, -2).swapaxes(-2, -1).astype(np.uint8, order="C")


def contact_sheet(pictures: Sequence[Pixels]) -> Pixels:
    """Pictures in rows on white, about as many across as down; small ones enlarged by a whole factor."""
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    factor = max(1, _LEAST_CELL // max(height, width))
    columns = isqrt(len(pictures) - 1) + 1
    rows = ceil(len(pictures) / columns)
    down, across = height * factor + _GAP, width * factor + _GAP
    sheet = np.full((rows * down + _GAP, columns * across + _GAP, 3), 255, np.uint8)
    for place, picture in enumerate(pictures):
        top, left = _GAP + place // columns * down, _GAP + place % columns * across
        large = picture.repeat(factor, axis=0).repeat(factor, axis=1)
        sheet[top : top + large.shape[0], left : left + large.shape[1]] = large
    return sheet


def _plain(pixels: Pixels) -> Pixels:
    """Pixels as Pillow takes them: greyscale without an axis of channels."""
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def _raw(image: pb.Image, field: str, max_pixels: int) -> Pixels:
    if image.width < 1 or image.height < 1 or image.channels not in (1, 3, 4):
        raise invalid(
            field,
            f"{field} is raw and {image.width}×{image.height} with {image.channels} channels: give its width "
            f"and height, and 1, 3 or 4 channels",
        )
    _check_size(image.width, image.height, field, max_pixels)
    wanted = image.width * image.height * image.channels
    if len(image.data) != wanted:
        raise invalid(
            field,
            f"{field} has {len(image.data)} bytes, and {image.height}×{image.width}×{image.channels} raw "
            f"needs {wanted}",
        )
    return np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, image.channels)


def _open(data: bytes, field: str, max_pixels: int) -> Image.Image:
    try:
        opened = Image.open(io.BytesIO(data), formats=_FORMATS)
        # The header says how large it is: look before anything is decompressed.
        _check_size(opened.width, opened.height, field, max_pixels)
        opened.load()
        return ImageOps.exif_transpose(opened)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise invalid(
            field, f"{field} has far more pixels than the {max_pixels} that there is room for: scale it down"
        ) from error
    except UnidentifiedImageError as error:
        raise invalid(field, f"{field} is not a PNG, JPEG or WebP image") from error
    except ServingError:
        raise
    except Exception as error:  # decoders of untrusted bytes raise whatever comes to them
        raise invalid(field, f"{field} is truncated or broken: {error}") from error


def _check_size(width: int, height: int, field: str, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise invalid(
            field,
            f"{field} is {width}×{height}, {width * height} pixels, and there is room for {max_pixels}: "
            f"scale it down",
        )


def _flatten(image: Image.Image) -> Image.Image:
    """8 bits a channel, no palette, and transparency laid on white."""
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64)
        return Image.fromarray(np.clip((levels + 128) // 257, 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque).convert("RGB")
    return image
