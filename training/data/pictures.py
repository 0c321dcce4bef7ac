"""Many picture files: all checked once, then held in memory, or decoded in threads if they are too many."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from training.data import Batch, DataError, DataSpec
from training.data.arrays import digest_of, to_unit_range
from training.data.crop import crops_at
from training.data.decode import decode
from training.data.progress_bar import shown

WORKERS = min(8, os.cpu_count() or 1)
AHEAD = 1024
"""Pictures decoded ahead of whoever reads them."""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Files that were read whole at least once."""

    files: tuple[Path, ...]
    """The files."""
    digests: tuple[str, ...]
    """SHA-256 of the pixels of each."""
    side: int
    """Height and width to which each is cut and resized."""
    channels: int
    """1 for grey, 3 for RGB."""
    pixels: NDArray[np.uint8] | None
    """All of them, [count, channels, side, side], or None where they are read when asked for."""

    def __len__(self) -> int:
        """Number of files."""
        return len(self.files)

    def take(self, index: NDArray[np.int64]) -> Pictures:
        """Some of the files."""
        return Pictures(
            files=tuple(self.files[i] for i in index),
            digests=tuple(self.digests[i] for i in index),
            side=self.side,
            channels=self.channels,
            pixels=None if self.pixels is None else self.pixels[index],
        )

    def read(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The pixels of some of them, [n, channels, side, side]."""
        if self.pixels is not None:
            return self.pixels[index]
        decoded = list(_decoded([self.files[i] for i in index], self.side, self.channels))
        for picture in decoded:
            if isinstance(picture, DataError):
                raise picture
        return np.stack([picture for picture in decoded if not isinstance(picture, DataError)])


def read_pictures(
    files: Sequence[Path], side: int, channels: int, memory_mb: int, skip_broken: bool
) -> tuple[Pictures, NDArray[np.int64]]:
    """Reads every file once; returns the whole ones and their numbers among the files.

    A broken one is an error that names it, or is left out with a warning. Pixels are kept where those of all
    files fit into `memory_mb`.
    """
    fits = len(files) * channels * side**2 <= memory_mb * 10**6
    pixels = np.empty((len(files), channels, side, side), np.uint8) if fits else None
    whole: list[int] = []
    digests: list[str] = []
    broken: list[str] = []
    results = _decoded(files, side, channels)
    for number, picture in enumerate(shown(results, "Reading pictures", len(files))):
        if isinstance(picture, DataError):
            if not skip_broken:
                raise picture
            broken.append(files[number].name)
            continue
        if pixels is not None:
            pixels[len(whole)] = picture
        whole.append(number)
        digests.append(hashlib.sha256(picture.data).hexdigest())
    if broken:
        names = ", ".join(broken[:5]) + (", ..." if len(broken) > 5 else "")
        warnings.warn(f"{len(broken)} of {len(files)} pictures are broken and skipped: {names}", stacklevel=2)
    pictures = Pictures(
        files=tuple(files[i] for i in whole),
        digests=tuple(digests),
        side=side,
        channels=channels,
        pixels=None if pixels is None else pixels[: len(whole)],
    )
    return pictures, np.array(whole, np.int64)


def _decoded(files: Sequence[Path], side: int, channels: int) -> Iterator[NDArray[np.uint8] | DataError]:
    """The pixels of each file in order, or what is wrong with it."""
    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="decode")
    attempt = partial(_attempt, side=side, channels=channels)
    try:
        for start in range(0, len(files), AHEAD):
            yield from pool.map(attempt, files[start : start + AHEAD])
    finally:
        pool.shutdown(cancel_futures=True)


def _attempt(path: Path, side: int, channels: int) -> NDArray[np.uint8] | DataError:
    """The pixels, or the error as a value."""
    try:
        return decode(path, side, channels)
    except DataError as error:
        return error


@dataclass(frozen=True, kw_only=True)
class PictureData:
    """Pictures as training data, cropped at random or in the middle."""

    spec: DataSpec
    """What they are."""
    pictures: Pictures
    """The files, at least as large as the spec says."""
    labels: NDArray[np.int64] | None = None
    """int64 [count], or None without classes."""
    random_crop: bool = False
    """Whether a picture larger than the spec is cropped anywhere, or in the middle."""

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.pictures)

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """The pictures at these indices, cropped at places drawn by `rng`."""
        pixels = self.pictures.read(indices)
        room = self.pictures.side - self.spec.height
        if room:
            if self.random_crop:
                top, left = rng.integers(room + 1, size=(2, len(indices)))
            else:
                top = left = np.full(len(indices), room // 2)
            pixels = crops_at(pixels, np.arange(len(indices)), top, left, self.spec.height)
        return Batch(
            images=to_unit_range(torch.from_numpy(pixels)),
            labels=None if self.labels is None else torch.from_numpy(self.labels[indices]),
        )


def digest_of_pictures(*parts: Pictures, labels: NDArray[np.int64] | None = None) -> str:
    """SHA-256 over the pixels of all pictures in order, by way of their digests, and the labels."""
    return digest_of(*(np.array(part.digests) for part in parts), labels)
