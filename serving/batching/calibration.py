"""Measuring what batches cost before anybody asks: in the background, while the engine is idle."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from time import monotonic

import numpy as np

from serving.batching.engine import Engine
from serving.calls import Tensors
from serving.errors import ServingError
from serving.manifest import Manifest

log = logging.getLogger(__name__)

_REPEATS = 3
_SECONDS_A_GRAPH = 0.3
_LONGEST_CALL = 0.1
_BEYOND = 4  # times the best size so far: a hiccup at a small one does not end it
_DTYPES = {"float32": np.float32, "int64": np.int64}


async def calibrate(engine: Engine, graphs: Iterable[tuple[Manifest, int]]) -> None:
    """Measures batches of 1, 2, 4, ... rows of each graph, up to where more rows gain nothing.

    Gives way to requests between any two calls, and spends little on a graph: what it leaves open is learnt
    from the requests themselves.
    """
    for manifest, version in graphs:
        if not engine.knows(manifest.graph, version):
            continue  # unloaded meanwhile
        try:
            await _calibrate(engine, manifest, version)
        except ServingError as error:
            log.info("%s was not measured: %s", manifest.graph, error.message)


async def _calibrate(engine: Engine, manifest: Manifest, version: int) -> None:
    cost = engine.cost(manifest.graph, version)
    if cost is None:
        return
    rows = manifest.versions[version].min_rows
    until = monotonic() + _SECONDS_A_GRAPH
    while rows <= manifest.max_batch_size and not (cost.settled and rows > _BEYOND * cost.full(rows)):
        inputs = _zeros(manifest, rows)
        for _ in range(_REPEATS):
            await engine.idle()
            seconds = await engine.measure(manifest.graph, version, inputs)
            cost.observe(rows, seconds)
        if monotonic() > until or seconds > _LONGEST_CALL:
            break
        rows *= 2
    log.debug(
        "%s version %d: %d rows a batch, %.2f ms",
        manifest.graph,
        version,
        cost.full(rows),
        1e3 * cost.call_seconds(),
    )


def _zeros(manifest: Manifest, rows: int) -> Tensors:
    return {spec.name: np.zeros((rows, *spec.shape), _DTYPES[spec.dtype]) for spec in manifest.inputs}
