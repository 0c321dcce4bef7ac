"""How fast graphs are: rows per second, measured in turns so that a busy machine slows all alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from time import perf_counter
from typing import Any

import onnxruntime
from numpy.typing import NDArray

Tensors = Mapping[str, NDArray[Any]]

ROUNDS = 7
"""Turns of every contender, of which the median counts."""

SECONDS_A_TURN = 0.05
"""How long a turn lasts at least."""

_NEAR_BEST = 0.95


def rows_per_second(
    contenders: Sequence[tuple[onnxruntime.InferenceSession, Tensors]],
    *,
    rounds: int = ROUNDS,
    seconds: float = SECONDS_A_TURN,
) -> list[float]:
    """Rows per second of sessions on their inputs, each the median of its turns."""
    found: list[list[float]] = [[] for _ in contenders]
    for session, inputs in contenders:
        session.run(None, inputs)
    for _ in range(rounds):
        for (session, inputs), rates in zip(contenders, found, strict=True):
            rates.append(_turn(session, inputs, seconds))
    return [median(rates) for rates in found]


def buckets(least: int, most: int) -> list[int]:
    """Powers of two times `least` below `most`, and `most`."""
    sizes = []
    while least < most:
        sizes.append(least)
        least *= 2
    return [*sizes, most]


def enough_rows(rates: Mapping[int, float]) -> int:
    """The fewest rows whose rate is within 5% of the best."""
    best = max(rates.values())
    return min(rows for rows, rate in rates.items() if rate >= _NEAR_BEST * best)


def _turn(session: onnxruntime.InferenceSession, inputs: Tensors, seconds: float) -> float:
    rows, done, began = len(next(iter(inputs.values()))), 0, perf_counter()
    while True:
        session.run(None, inputs)
        done += rows
        taken = perf_counter() - began
        if taken >= seconds:
            return done / taken
