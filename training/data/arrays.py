"""Images that fit in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.data import Batch, DataSpec


def to_unit_range(images: Tensor, levels: int = 256) -> Tensor:
    """Integer values 0..levels-1 as float32 in [-1, 1]; both ends and the middle are exact."""
    return images.to(torch.float32).div_((levels - 1) / 2).sub_(1.0)


def from_unit_range(images: Tensor, levels: int = 256) -> NDArray[np.uint8]:
    """The inverse of `to_unit_range`: values in [-1, 1] rounded to the nearest of `levels` and clipped."""
    values = images.detach().to("cpu", torch.float32).add(1.0).mul_((levels - 1) / 2)
    result: NDArray[np.uint8] = values.round_().clamp_(0, levels - 1).to(torch.uint8).numpy()
    return result


def digest_of(*arrays: NDArray[Any] | None) -> str:
    """SHA-256 over the shapes, types and bytes of arrays, in this order; None counts as absent."""
    digest = hashlib.sha256()
    for array in arrays:
        if array is not None:
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class ArrayData:
    """Images held in memory as small integers, turned into floats a batch at a time."""

    spec: DataSpec
    """What they are."""
    images: NDArray[np.uint8]
    """uint8 [count, channels, height, width], values 0..spec.levels-1."""
    labels: NDArray[np.int64] | None = None
    """int64 [count], or None without classes."""
    attributes: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Whatever else is known of each image (factors, names, captions), [count, ...] by name."""

    def __post_init__(self) -> None:
        """Refuses columns that are not of one length and images that are not what the spec says."""
        expected = (self.spec.channels, self.spec.height, self.spec.width)
        if self.images.dtype != np.uint8 or self.images.shape[1:] != expected:
            raise ValueError(
                f"images of {self.spec.name} are {self.images.dtype} {self.images.shape[1:]}, "
                f"and its spec says uint8 {expected}"
            )
        columns = {"labels": self.labels, **self.attributes}
        for name, column in columns.items():
            if column is not None and len(column) != len(self.images):
                raise ValueError(
                    f"{name} of {self.spec.name} are {len(column)}, its images {len(self.images)}"
                )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """The images and labels at these indices."""
        return Batch(
            images=to_unit_range(torch.from_numpy(self.images[indices]), self.spec.levels),
            labels=None if self.labels is None else torch.from_numpy(self.labels[indices]),
        )
