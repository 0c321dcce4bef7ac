"""Two domains side by side, for translation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data import Batch, DataSpec, ImageData


@dataclass(frozen=True, kw_only=True)
class PairData:
    """Images of a first domain, and targets of a second one: paired, or drawn independently of them."""

    spec: DataSpec
    """What they are, with both domains named."""
    first: ImageData
    """The first domain; its labels are those of the batch."""
    second: ImageData
    """The second domain."""
    paired: bool
    """Whether image i of both domains shows the same thing."""

    def __post_init__(self) -> None:
        """Refuses pairs that do not pair."""
        if self.paired and len(self.first) != len(self.second):
            raise ValueError(
                f"paired domains of {self.spec.name} hold {len(self.first)} and {len(self.second)} images"
            )

    def __len__(self) -> int:
        """Number of images of the larger domain."""
        return max(len(self.first), len(self.second))

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """Images at these indices (the smaller domain begins again at its end) with their targets.

        Both domains are given the same random numbers, so that paired images are cropped alike.
        """
        chosen = indices if self.paired else rng.integers(len(self.second), size=len(indices))
        seed = int(rng.integers(2**63))
        images = self.first.batch(indices % len(self.first), np.random.default_rng(seed))
        targets = self.second.batch(chosen, np.random.default_rng(seed))
        return Batch(images=images.images, labels=images.labels, targets=targets.images)
