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


def grid(images: Tensor, rows: int = ROWS) -> NDArray[np.uint8]:
    """Images [n, 1 or 3, height, width] in [-1, 1] as one picture, uint8 [height, width, channels].

    They run along the rows; small ones are enlarged by repeating pixels.
    """
    count, channels, height, width = images.shape
    columns = math.ceil(count / rows)
    rows = math.ceil(count / columns)
    pixels = ((images.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
    sheet = np.zeros((rows * columns, channels, height, width), np.uint8)
    sheet[:count] = pixels
    sheet = sheet.reshape(rows, columns, channels, height, width).transpose(0, 3, 1, 4, 2)
    picture = sheet.reshape(rows * height, columns * width, channels)
    factor = math.ceil(LEAST_TILE / min(height, width))
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def save_grid(images: Tensor, path: Path) -> NDArray[np.uint8]:
    """Write the grid of some images as a PNG and return it."""
    picture = grid(images)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(path)
    return picture
