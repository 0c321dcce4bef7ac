"""Noise that is a function of (seed, image, stream, step) and of nothing else.

Each image of a request has its own counter-based generator (Philox, Salmon et al. 2011), so image `i` is the
same whatever the count, the batch or the order of the calls.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.calls import Array


class Stream(IntEnum):
    """What noise is for: streams of one image never overlap."""

    PRIOR = 0
    """The latent, or the noise that a diffusion starts from."""
    STEP = 1
    """Noise added by a stochastic sampler, by step."""
    DECODER = 2
    """The `noise` input of a decoder."""
    CLASS = 3
    """The class of an image where none was asked for."""


def normal(seed: int, count: int, shape: Sequence[int], stream: Stream, step: int = 0) -> Array:
    """Standard normal noise [count, *shape], the row of image `i` drawn by its own generator."""
    noise = np.empty((count, *shape), np.float32)
    for image in range(count):
        _generator(seed, image, stream, step).standard_normal(out=noise[image], dtype=np.float32)
    return noise


def classes(seed: int, count: int, labels: int) -> NDArray[np.int64]:
    """A class for each image, uniform over `labels` [count]."""
    return np.array(
        [_generator(seed, image, Stream.CLASS, 0).integers(labels) for image in range(count)], np.int64
    )


class _Keyed(threading.local):
    """A generator for each thread, set to keys and counters: making one each time takes far longer."""

    def __init__(self) -> None:
        self.bits = np.random.Philox(key=0)
        self.generator = np.random.Generator(self.bits)
        self.key = np.zeros(2, np.uint64)
        self.counter = np.zeros(4, np.uint64)
        empty = np.zeros(4, np.uint64)
        self.state: Any = {
            "bit_generator": "Philox",
            "state": {"key": self.key, "counter": self.counter},
            "buffer": empty,
            "buffer_pos": len(empty),  # nothing is left of what was drawn before
            "has_uint32": 0,
            "uinteger": 0,
        }


_keyed = _Keyed()


def _generator(seed: int, image: int, stream: Stream, step: int) -> np.random.Generator:
    """The generator of these, to be used before the thread asks for another."""
    # Draws move the lowest word of the counter alone: (step, stream) in the upper words keeps them apart.
    key, counter = _keyed.key, _keyed.counter
    key[0], key[1] = seed, image
    counter[2], counter[3] = step, stream
    _keyed.bits.state = _keyed.state
    return _keyed.generator
