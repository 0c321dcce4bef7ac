"""The pictures of a card: a grid of samples, or of inputs and their translations beside the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Images = NDArray[np.float32]

LEAST_SIDE = 64
"""Pixels below which an image is enlarged, so that it can be looked at."""
GAP = 4
"""Pixels between images."""
MOST_COLUMNS = 12


def generation_grid(images: Images, classes: int, *, rows: int = 8) -> Image.Image:
    """The first images [n, channels, height, width], a class a column where the classes are few enough."""
    columns = _columns(classes)
    return _tiled(images[: columns * rows], columns)


def translation_grid(first: Images, second: Images, translated: Mapping[str, Images]) -> Image.Image:
    """A row of inputs, a row of their translations and a row of the truth, for each direction."""
    sides: Sequence[tuple[str, Images, Images]] = (("a_to_b", first, second), ("b_to_a", second, first))
    rows = [
        row[:MOST_COLUMNS]
        for direction, source, truth in sides
        if direction in translated
        for row in (source, translated[direction], truth)
    ]
    return _tiled(np.concatenate(rows), len(rows[0]))


def _columns(classes: int) -> int:
    if classes < 2:
        return 8
    return max(divisor for divisor in range(1, MOST_COLUMNS + 1) if classes % divisor == 0 or divisor == 1)


def _tiled(images: Images, columns: int) -> Image.Image:
    """Images in rows of `columns`, on white."""
    pixels = np.round((images.clip(-1, 1) + 1) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1)
    height, width = pixels.shape[1:3]
    factor = max(1, -(-LEAST_SIDE // min(height, width)))
    cell_width, cell_height = width * factor + GAP, height * factor + GAP
    rows = -(-len(pixels) // columns)
    sheet = Image.new("RGB", (columns * cell_width + GAP, rows * cell_height + GAP), "white")
    for index, image in enumerate(pixels):
        row, column = divmod(index, columns)
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).convert("RGB")
        picture = picture.resize((width * factor, height * factor), Image.Resampling.NEAREST)
        sheet.paste(picture, (GAP + column * cell_width, GAP + row * cell_height))
    return sheet
