"""Every random choice of a run as a function of its seed and the step, so that resumed runs repeat them."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import torch
from numpy.typing import NDArray

ORDER, DATA, DRAWS, GLOBAL, SAMPLES, HELD_OUT = range(6)
"""Streams: order of the images, crops and pairings, a step's generator, torch's global one (dropout), grids,
held-out figures."""


def mixed(seed: int, stream: int, *place: int) -> int:
    """63 well-mixed bits of a seed, a stream and a place in it (BLAKE2b)."""
    packed = struct.pack(f"<{2 + len(place)}q", seed, stream, *place)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little") >> 1


def numpy_rng(seed: int, stream: int, *place: int) -> np.random.Generator:
    """A numpy generator of its own for a place of a stream."""
    return np.random.Generator(np.random.PCG64(mixed(seed, stream, *place)))


def seed_torch(device: torch.device, value: int) -> None:
    """Seed torch's global generators of the CPU and of one device.

    As torch.manual_seed, which takes 100 µs to ask for every backend that there is.
    """
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(value)
    elif device.type == "mps":
        torch.mps.manual_seed(value)


class Order:
    """Which images a step sees: a fresh permutation every epoch, cut into batches across epochs' borders."""

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self._epoch = -1
        self._permutation: NDArray[np.int64] = np.empty(0, np.int64)

    def indices(self, step: int) -> NDArray[np.int64]:
        """int64 [batch_size]: positions step · batch_size and on in the endless sequence of permutations."""
        begin, parts = step * self.batch_size, []
        end = begin + self.batch_size
        while begin < end:
            epoch, place = divmod(begin, self.count)
            if epoch != self._epoch:
                self._epoch = epoch
                self._permutation = numpy_rng(self.seed, ORDER, epoch).permutation(self.count)
            part = self._permutation[place : place + end - begin]
            parts.append(part)
            begin += len(part)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
