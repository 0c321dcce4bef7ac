"""Percentiles, medians, and runs that take turns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from statistics import median
from typing import TypeVar

import numpy as np

Result = TypeVar("Result")

NAMES = {
    "raw": "raw onnxruntime",
    "rewritten": "raw onnxruntime, graph rewritten",
    "atelier": "Atelier",
    "atelier over HTTP": "Atelier over HTTP",
    "mlserver": "MLServer",
    "triton": "Triton",
    "litserve": "LitServe",
    "bentoml": "BentoML",
}
"""Whose figures they are, as people read it."""

LOOPS = ("raw", "rewritten")
"""Those of no server."""


def percentile(values: Sequence[float], percent: float) -> float:
    """The percentile, interpolated linearly; NaN of nothing."""
    return float(np.percentile(values, percent)) if values else float("nan")


def middle(values: Sequence[float]) -> float:
    """The median; NaN of nothing."""
    return float(median(values)) if values else float("nan")


async def take_turns(
    runs: int, contenders: Mapping[str, Callable[[], Awaitable[Result]]], tell: Callable[[str], None]
) -> dict[str, list[Result]]:
    """Each contender once, then each again, `runs` times; every round begins with another one.

    What changes on the machine in the meantime so changes for all of them.
    """
    results: dict[str, list[Result]] = {name: [] for name in contenders}
    names = list(contenders)
    for run in range(runs):
        turn = run % len(names)
        for name in names[turn:] + names[:turn]:
            tell(f"run {run + 1} of {runs}: {name}")
            results[name].append(await contenders[name]())
    return results
