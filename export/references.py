"""Reference rows: what scores mean, on the same judge and against the same held-out images.

A figure says little alone. Beside it stand the best that is possible (real images), the least that counts
(class means, which score a perfect accuracy), and what a Gaussian per class reaches in pixel space, which
every learned family has to beat.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]
Labels = NDArray[np.int64]

COMPONENTS = 30
"""Principal components that the class-Gaussian row keeps."""


def class_means(images: Images, labels: Labels, wanted: Labels) -> Images:
    """For each wanted label the mean image of its class, [wanted, channels, height, width]."""
    means = {label: images[labels == label].mean(0) for label in np.unique(labels)}
    return np.stack([means[label] for label in wanted]).astype(np.float32)


def class_gaussians(
    images: Images, labels: Labels, wanted: Labels, *, levels: int, rng: np.random.Generator
) -> Images:
    """Draws from a Gaussian per class on the leading principal components, rounded to the data's levels."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    mean = flat.mean(0)
    components = np.linalg.svd(flat - mean, full_matrices=False)[2][:COMPONENTS]
    codes = (flat - mean) @ components.T
    drawn = np.empty((len(wanted), len(components)))
    for label in np.unique(wanted):
        rows, own = wanted == label, codes[labels == label]
        if len(own) < 2:
            raise ValueError(f"class {label} has {len(own)} training images: a Gaussian needs two or more")
        drawn[rows] = rng.multivariate_normal(own.mean(0), np.cov(own, rowvar=False), rows.sum())
    pixels = (drawn @ components + mean).clip(-1, 1)
    return quantised(pixels, levels).reshape(len(wanted), *images.shape[1:])


def quantised(images: NDArray[np.floating], levels: int) -> Images:
    """Images in [-1, 1] rounded to the nearest of `levels` evenly spaced values."""
    steps = levels - 1
    return (np.round((images + 1) / 2 * steps) / steps * 2 - 1).astype(np.float32)
