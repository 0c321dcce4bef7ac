"""A picture file of any kind as a small square array."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from training.data import DataError


def decode(path: Path, side: int, channels: int) -> NDArray[np.uint8]:
    """The middle square of a picture, resized: uint8 [channels, side, side].

    Turned as its EXIF data say, transparency on white, 16-bit greys scaled to 8, palettes and CMYK resolved.
    """
    try:
        with Image.open(path) as file:
            file.draft(None, (2 * side, 2 * side))
            upright = ImageOps.exif_transpose(file)
            picture = on_white(upright).convert("L" if channels == 1 else "RGB")
        square = ImageOps.fit(picture, (side, side), Image.Resampling.LANCZOS)
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path} cannot be read as a picture ({error}): mend or remove it, or set the option broken=skip"
        ) from error
    pixels = np.asarray(square).reshape(side, side, channels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def on_white(picture: Image.Image) -> Image.Image:
    """The picture in 8 bits without transparency, in mode L or RGB."""
    if picture.mode.startswith("I"):
        sixteen = np.asarray(picture).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((sixteen + 128) // 257).astype(np.uint8))
    if picture.mode == "F":
        raise ValueError("it holds floating-point numbers, whose range nobody knows")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        white.alpha_composite(layer)
        return white.convert("RGB")
    return picture if picture.mode == "L" else picture.convert("RGB")


def picture_suffixes() -> frozenset[str]:
    """Endings of the names of files that Pillow can open, in lower case with the dot."""
    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN)
