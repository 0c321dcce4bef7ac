"""A fixed division of things by their names, which no new thing among them disturbs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BYTES = 6


def shares(names: Sequence[str], purpose: str) -> NDArray[np.float64]:
    """A number in [0, 1) for each name, from its digest: the same everywhere, another for each purpose."""
    digests = [hashlib.sha256(f"{purpose}: {name}".encode()).digest() for name in names]
    return np.array([int.from_bytes(digest[:BYTES], "big") / 256**BYTES for digest in digests])


def held_out_of(names: Sequence[str], share: float) -> NDArray[np.bool_]:
    """Which of the names are held out: about this share of them, at least one and not all."""
    drawn = shares(names, "held out")
    held: NDArray[np.bool_] = drawn < share
    held[drawn.argmin()], held[drawn.argmax()] = True, False
    return held
