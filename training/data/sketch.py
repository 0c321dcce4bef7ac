"""Line drawings of pictures: their edges, thinned, joined and drawn again with a pen of one width."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.data.progress_bar import shown

Floats = NDArray[np.floating[Any]]

LOW, HIGH = 0.05, 0.14
"""An edge is drawn where its slope is above HIGH, and goes on while it is above LOW; full contrast is 1."""
SHORTEST = 10
"""Pixels of an edge, in a picture 128 wide, below which it is a speck and not drawn."""


def edges(picture: Floats, blur: float) -> NDArray[np.bool_]:
    """Edges one pixel wide by the method of Canny (1986), on the colour gradient of Di Zenzo (1986).

    `picture` is [3, height, width] in [0, 1]; `blur` is in pixels.
    """
    smooth = ndimage.gaussian_filter(picture, (0, blur, blur), mode="nearest")
    dx = ndimage.sobel(smooth, axis=2, mode="nearest") / 8
    dy = ndimage.sobel(smooth, axis=1, mode="nearest") / 8
    xx, yy, xy = (dx * dx).sum(0), (dy * dy).sum(0), (dx * dy).sum(0)
    angle = 0.5 * np.arctan2(2 * xy, xx - yy)
    slope = np.sqrt(0.5 * (xx + yy + np.hypot(xx - yy, 2 * xy)))
    rows, columns = np.nonzero(slope > LOW)
    here, toward = slope[rows, columns], angle[rows, columns]
    ahead, behind = (
        ndimage.map_coordinates(
            slope, (rows + side * np.sin(toward), columns + side * np.cos(toward)), order=1, mode="nearest"
        )
        for side in (1, -1)
    )
    ridge = np.zeros(slope.shape, np.bool_)
    ridge[rows, columns] = (here >= ahead) & (here > behind)
    parts, count = ndimage.label(ridge, np.ones((3, 3)))
    keep = np.bincount(parts.ravel(), minlength=count + 1) >= SHORTEST
    keep &= np.bincount(parts.ravel(), (slope > HIGH).ravel(), minlength=count + 1) > 0
    keep[0] = False
    drawn: NDArray[np.bool_] = keep[parts]
    return drawn


def line_drawing(picture: NDArray[np.uint8], size: int, blur: float, pen: float) -> NDArray[np.uint8]:
    """Dark lines on white, uint8 [3, size, size], of a picture [3, height, width] a multiple of that size.

    `blur` and `pen` (the width of a line) are in pixels of the result.
    """
    factor = picture.shape[1] // size
    thin = edges(picture.astype(np.float32) / 255, blur * factor)
    away = ndimage.distance_transform_edt(~thin) if thin.any() else np.full(thin.shape, np.inf)
    ink = np.clip(pen * factor / 2 + 0.5 - away, 0, 1)
    small = ink.reshape(size, factor, size, factor).mean((1, 3))
    grey = np.rint(255 * (1 - small)).astype(np.uint8)
    return np.broadcast_to(grey, (3, size, size))


def line_drawings(pictures: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Line drawings [count, 3, size, size], with a progress bar; at small sizes with fewer details."""
    blur, pen = 0.3 + size / 160, 0.5 + size / 90
    bar = shown(pictures, "Line drawings", len(pictures))
    return np.stack([line_drawing(picture, size, blur, pen) for picture in bar])
