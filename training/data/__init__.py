"""Data sets: what they are, and where each comes from.

A data set is opened by name or by name and path: `digits`, `shapes`, `folder:/photos`, `mnist:/data`.
It is an `ImageData`: it knows what it is (`spec`) and gives batches of images by index, so that a run
that is resumed sees the same batches as one that never stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

DATASETS: dict[str, str] = {
    "digits": "training.data.digits:open_digits",
    "emoji": "training.data.emoji:open_emoji",
    "emoji-sketch": "training.data.emoji:open_emoji_sketch",
    "shapes": "training.data.shapes:open_shapes",
    "shapes-stripes": "training.data.shapes:open_shapes_stripes",
    "photos": "training.data.photos:open_photos",
    "folder": "training.data.folders:open_folder",
    "folders": "training.data.folders:open_folder_pair",
    "mnist": "training.data.mnist:open_mnist",
    "cifar10": "training.data.cifar:open_cifar10",
}
"""Data sets by name, as import strings that are resolved on use. Each takes the path after the colon (or
None) and keyword options, and returns a `Splits`."""


class DataError(ValueError):
    """Data that cannot be used: names the path or the option, and the remedy."""


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """What a data set is: all that a network, an export or a card needs to know of it."""

    name: str
    """Name and path as given, for example `digits` or `folder:/photos`."""
    channels: int
    """1 for grey, 3 for RGB."""
    height: int
    """Pixels."""
    width: int
    """Pixels."""
    class_labels: tuple[str, ...] = ()
    """Names of the classes in the order of their ids; empty without classes."""
    domains: tuple[str, ...] = ()
    """Names of the two domains, for translation."""
    levels: int = 256
    """Number of distinct values a channel takes (17 for digits, whose ink is counted from 0 to 16)."""
    enlarge: int = 1
    """Factor by which exported graphs enlarge the images, for data too small to look at."""
    digest: str = ""
    """SHA-256 over all images and labels of the training split."""
    count: int = 0
    """Images in the training split."""
    options: Mapping[str, Any] | None = None
    """Options that the data set was opened with."""
    source: str = ""
    """Where it comes from and under which licence, one sentence."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some images, as tensors on one device."""

    images: Tensor
    """float32 [n, channels, height, width] in [-1, 1]; the first domain, where there are two."""
    labels: Tensor | None = None
    """int64 [n], or None without classes."""
    targets: Tensor | None = None
    """Images of the second domain, [n, ...]; drawn independently of `images` unless the data are paired."""

    def to(self, device: Any) -> Batch:
        """The same batch on another device."""
        return Batch(
            images=self.images.to(device),
            labels=None if self.labels is None else self.labels.to(device),
            targets=None if self.targets is None else self.targets.to(device),
        )


class ImageData(Protocol):
    """Images by index."""

    @property
    def spec(self) -> DataSpec:
        """What they are."""

    def __len__(self) -> int:
        """Number of images (of the larger domain, where there are two)."""

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """The images at these indices, as a CPU batch; `rng` serves random crops and the draw of targets."""


@dataclass(frozen=True, kw_only=True)
class Splits:
    """A data set in its two fixed parts."""

    train: ImageData
    """What is trained on."""
    held_out: ImageData
    """What is measured on and never trained on."""
