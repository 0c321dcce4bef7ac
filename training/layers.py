"""Layers that families share: classes as vectors; enlarging small images inside a graph, and back."""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class ClassCode(nn.Module):
    """A learned vector [n, dim] for each class id [n]; without classes, of length 0."""

    def __init__(self, classes: int, dim: int = 32) -> None:
        super().__init__()
        self.table = nn.Embedding(classes, dim) if classes else None
        self.dim = dim if classes else 0

    def forward(self, x: Tensor, class_id: Tensor | None) -> Tensor:
        """`x` [n, features] with the class's vector behind it."""
        return x if self.table is None else torch.cat([x, self.table(class_id)], dim=1)


@functools.cache
def _bicubic(size: int, factor: int) -> NDArray[np.float64]:
    """Matrix [size * factor, size] of bicubic interpolation (Keys 1981, a = -1/2), as Pillow resizes: rows
    sum to one, and near a border the weights are of the pixels that there are."""
    centres = (np.arange(size * factor) + 0.5) / factor - 0.5
    d = np.abs(centres[:, None] - np.arange(size))
    near = 1.5 * d**3 - 2.5 * d**2 + 1
    far = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    weights = np.where(d < 1, near, np.where(d < 2, far, 0.0))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


@functools.cache
def _bicubic_inverse(size: int, factor: int) -> NDArray[np.float64]:
    """The pseudo-inverse [size, size * factor] of `_bicubic`."""
    return np.asarray(np.linalg.pinv(_bicubic(size, factor)), dtype=np.float64)


def _separable(matrix: NDArray[np.float64], other: NDArray[np.float64], x: Tensor) -> Tensor:
    """`matrix` over the rows and `other` over the columns of images [n, channels, height, width].

    Both are constants of an exported graph, whose height and width are therefore fixed.
    """
    rows = torch.tensor(matrix, dtype=x.dtype, device=x.device)
    columns = torch.tensor(other.T, dtype=x.dtype, device=x.device)
    return rows @ x @ columns


class Enlarge(nn.Module):
    """Enlarges images [n, c, h, w] in [-1, 1] to [n, c, h * factor, w * factor], bicubically and clamped."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        if factor < 1:
            raise ValueError(f"factor {factor} cannot enlarge an image: give 1 (as it is) or more")
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.interpolate(x).clamp(-1, 1)

    def interpolate(self, x: Tensor) -> Tensor:
        """The enlarged images before they are clamped: linear in `x`."""
        if self.factor == 1:
            return x
        height, width = int(x.shape[-2]), int(x.shape[-1])
        return _separable(_bicubic(height, self.factor), _bicubic(width, self.factor), x)


class Shrink(nn.Module):
    """Takes `Enlarge` back: images [n, c, h * factor, w * factor] to [n, c, h, w] in [-1, 1].

    Least squares gives the image whose enlargement is nearest. What the clamp of `Enlarge` cut off is then
    found by fixed-point steps on the difference to the clamped enlargement; four of them recover every
    level of a 17-level digit, even from an 8-bit picture.
    """

    def __init__(self, factor: int, corrections: int = 4) -> None:
        super().__init__()
        self.enlarge = Enlarge(factor)
        self.corrections = corrections

    def forward(self, x: Tensor) -> Tensor:
        if self.enlarge.factor == 1:
            return x
        small = self.invert(x).clamp(-1, 1)
        for _ in range(self.corrections):
            small = (small + self.invert(x - self.enlarge(small))).clamp(-1, 1)
        return small

    def invert(self, x: Tensor) -> Tensor:
        """The least-squares inverse of `Enlarge.interpolate`: linear in `x`, and exact without a clamp."""
        factor = self.enlarge.factor
        height, width = int(x.shape[-2]), int(x.shape[-1])
        if height % factor or width % factor:
            raise ValueError(
                f"an image of {height}×{width} pixels was not enlarged ×{factor}: give a multiple"
            )
        return _separable(
            _bicubic_inverse(height // factor, factor), _bicubic_inverse(width // factor, factor), x
        )
