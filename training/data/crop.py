"""Squares cut out of images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def crops_at(
    images: NDArray[np.uint8],
    image: NDArray[np.int64],
    top: NDArray[np.int64],
    left: NDArray[np.int64],
    size: int,
) -> NDArray[np.uint8]:
    """The squares at these places of these images, [count, channels, size, size]."""
    rows = top[:, np.newaxis] + np.arange(size)
    columns = left[:, np.newaxis] + np.arange(size)
    channels = np.arange(images.shape[1])[:, np.newaxis, np.newaxis]
    crops: NDArray[np.uint8] = images[
        image[:, np.newaxis, np.newaxis, np.newaxis],
        channels,
        rows[:, np.newaxis, :, np.newaxis],
        columns[:, np.newaxis, np.newaxis, :],
    ]
    return crops
