"""A grid of images as a PNG."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

ROWS = 8
"""Rows of a grid."""
LEAST_TILE = 64
"""Pixels that an image has at least on each side; smaller ones are enlarged by a whole factor."""
GAP = 4
"""Pixels between images."""
BACKGROUND = 128
"""Grey between images and where there are none."""


def grid(images: Tensor, rows: int = ROWS) -> NDArray[np.uint8]:
    """Images [n, 1 or 3, height, width] in [-1, 1] as one picture, uint8 [height, width, channels].

    They run along the rows, on grey; small ones are enlarged by repeating pixels.
    """
    count, channels, height, width = images.shape
    columns = math.ceil(count / rows)
    rows = math.ceil(count / columns)
    pixels = ((images.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
    factor = math.ceil(LEAST_TILE / min(height, width))
    pixels = pixels.repeat(factor, axis=2).repeat(factor, axis=3).transpose(0, 2, 3, 1)
    down, across = height * factor + GAP, width * factor + GAP
    sheet = np.full((rows * down - GAP, columns * across - GAP, channels), BACKGROUND, np.uint8)
    for place, tile in enumerate(pixels):
        top, left = place // columns * down, place % columns * across
        sheet[top : top + down - GAP, left : left + across - GAP] = tile
    return sheet


def save_grid(images: Tensor, path: Path) -> NDArray[np.uint8]:
    """Write the grid of some images as a PNG and return it."""
    picture = grid(images)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(path)
    return picture
