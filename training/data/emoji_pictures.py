"""Emoji drawn from the bitmaps of a colour font."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, features

from training.data import DataError
from training.data.emoji_sequences import Emoji

FONT_SIZE = 109
"""The only size in which Noto Color Emoji has bitmaps: 136×128 pixels, four of them empty on either side."""
FRAME = 128
"""Pixels of the square that holds a whole bitmap."""
OFFSET = (-4, 0)


def open_font(path: Path) -> ImageFont.FreeTypeFont:
    """The font, in the size of its bitmaps."""
    if not features.check("raqm"):
        raise DataError(
            "this Pillow has no raqm, without which emoji sequences fall apart into their characters: "
            "install Pillow's own wheel (pip install --force-reinstall pillow)"
        )
    try:
        return ImageFont.truetype(str(path), FONT_SIZE, layout_engine=ImageFont.Layout.RAQM)
    except OSError as error:
        raise DataError(
            f"{path} is no font with colour bitmaps of size {FONT_SIZE} ({error}): "
            f"install the Debian package fonts-noto-color-emoji, or give its NotoColorEmoji.ttf as font"
        ) from error


def draw(emoji: Emoji, font: ImageFont.FreeTypeFont) -> Image.Image:
    """The emoji on white, RGB at 128×128."""
    layer = Image.new("RGBA", (FRAME, FRAME), (255, 255, 255, 0))
    ImageDraw.Draw(layer).text(OFFSET, emoji.text, font=font, embedded_color=True)
    if layer.getbbox() is None:
        raise DataError(
            f"the font has no picture of {emoji.name!r}: fonts-noto-color-emoji is older than unicode-data; "
            f"update both"
        )
    picture = Image.new("RGBA", layer.size, "white")
    picture.alpha_composite(layer)
    return picture.convert("RGB")


def draw_all(sequences: Sequence[Emoji], font: ImageFont.FreeTypeFont, size: int) -> NDArray[np.uint8]:
    """All emoji on white, uint8 [count, 3, size, size]."""
    images = np.empty((len(sequences), 3, size, size), np.uint8)
    for image, emoji in zip(images, sequences, strict=True):
        picture = draw(emoji, font).resize((size, size), Image.Resampling.LANCZOS)
        image[:] = np.asarray(picture).transpose(2, 0, 1)
    return images
