"""Noise that is a function of (seed, image, stream, step) and of nothing else.

Each image of a request has its own counter-based generator (Philox, Salmon et al. 2011), so image `i` is the
same whatever the count, the batch or the order of the calls.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from enum import IntEnum

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


_keyed = _Keyed()
_EMPTY = np.zeros(4, np.uint64)


def _generator(seed: int, image: int, stream: Stream, step: int) -> np.random.Generator:
    """The generator of these, to be used before the thread asks for another."""
    # Draws move the lowest word of the counter alone: (step, stream) in the upper words keeps them apart.
    _keyed.bits.state = {
        "bit_generator": "Philox",
        "state": {
            "key": np.array([seed, image], np.uint64),
            "counter": np.array([0, 0, step, stream], np.uint64),
        },
        "buffer": _EMPTY,
        "buffer_pos": len(_EMPTY),  # nothing is left of what was drawn before
        "has_uint32": 0,
        "uinteger": 0,
    }
    return _keyed.generator
