"""The engine: waiting rows go to the backend the moment it has an instance free."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Mapping
from time import monotonic

from serving.backends import Backend
from serving.batching.lane import Entry, Lane, Part, Ticket
from serving.calls import Call, Tensors
from serving.errors import Code, ServingError
from serving.manifest import Manifest
from serving.metrics import Metrics

log = logging.getLogger(__name__)

LaneKey = tuple[str, int, tuple[tuple[str, tuple[int, ...]], ...]]
"""Graph, version, and the shapes of a row by input."""


class Engine:
    """Joins calls of all requests into batches. Lives in one event loop.

    There is one lane for each graph, version and shape of row. Lanes with waiting rows take turns; a lane
    gives an idle engine all it has at once, spread over what is free, and never waits for company. While
    every instance is busy rows gather, so batches grow with the load.
    """

    def __init__(
        self,
        backend: Backend,
        manifests: Mapping[str, Manifest],
        *,
        max_batch_bytes: int,
        metrics: Metrics,
    ) -> None:
        self._backend = backend
        self._manifests = manifests
        self._max_batch_bytes = max_batch_bytes
        self._metrics = metrics
        self._lanes: dict[LaneKey, Lane] = {}
        self._waiting: deque[Lane] = deque()
        self._running: Counter[str] = Counter()
        self._dispatch_due = False
        self._batches: set[asyncio.Task[None]] = set()
        self._closed = False

    async def call(self, call: Call, ticket: Ticket) -> Tensors:
        """The outputs of a call. Cancelling withdraws its rows; batch mates never notice."""
        if self._closed:
            raise ServingError(Code.UNAVAILABLE, "the gateway is stopping; ask again elsewhere")
        lane = self._lane(call, ticket.version)
        future: asyncio.Future[Tensors] = asyncio.get_running_loop().create_future()
        entry = Entry(inputs=call.inputs, rows=call.rows, ticket=ticket, future=future)
        if lane not in self._waiting:
            self._waiting.append(lane)
        lane.put(entry)
        self._dispatch_soon()
        self._count_pending()
        try:
            return await future
        finally:
            lane.withdraw(entry)
            self._count_pending()

    async def close(self) -> None:
        """Begins nothing new, and waits for the batches under way."""
        self._closed = True
        for lane in self._waiting:
            for part in lane.take(lane.pending):
                part.entry.fail(ServingError(Code.UNAVAILABLE, "the gateway is stopping; ask again"))
        self._waiting.clear()
        while self._batches:
            await asyncio.wait(self._batches)

    def _lane(self, call: Call, version: int) -> Lane:
        key = (call.graph, version, tuple((name, array.shape[1:]) for name, array in call.inputs.items()))
        lane = self._lanes.get(key)
        if lane is None:
            manifest = self._manifests[call.graph]
            row_bytes = sum(array.nbytes for array in call.inputs.values()) // call.rows
            lane = self._lanes[key] = Lane(
                graph=call.graph,
                version=version,
                dynamic=any(-1 in spec.shape for spec in manifest.inputs),
                max_rows=max(1, min(manifest.max_batch_size, self._max_batch_bytes // row_bytes)),
                min_rows=manifest.versions[version].min_rows,
            )
        return lane

    def _dispatch_soon(self) -> None:
        """Dispatches when all that were woken together have put in their next call: so they stay together."""
        if not self._dispatch_due:
            self._dispatch_due = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._dispatch_due = False
        stuck = 0
        while stuck < len(self._waiting):
            free = self._backend.slots() - self._running.total()
            if free <= 0:
                break
            lane = self._waiting.popleft()
            # What is free is shared among the lanes that wait, and a lane's rows over its share of it: on
            # an idle engine they are computed side by side, rather than in one call on one core.
            share = max(1, free // (len(self._waiting) + 1))
            share = min(share, self._backend.instances(lane.graph) - self._running[lane.graph])
            for batch in range(share, 0, -1):
                parts = lane.take(min(lane.max_rows, -(-lane.pending // batch)))
                if parts:
                    self._start(lane, parts)
            if lane.pending:
                self._waiting.append(lane)
                stuck = 0 if share > 0 else stuck + 1
        self._count_pending()

    def _start(self, lane: Lane, parts: list[Part]) -> None:
        lane.running += 1
        self._running[lane.graph] += 1
        task = asyncio.create_task(self._compute(lane, parts))
        self._batches.add(task)
        task.add_done_callback(self._batches.discard)

    async def _compute(self, lane: Lane, parts: list[Part]) -> None:
        inputs, buffers = lane.join(parts)
        started = monotonic()
        try:
            outputs = await self._backend.infer(lane.graph, lane.version, inputs)
        except Exception as error:
            self._metrics.call_failures.labels(lane.graph).inc()
            for part in parts:
                part.entry.fail(_failure(error, lane))
            if not isinstance(error, ServingError):
                log.exception("a call of %s with %d rows failed", lane.graph, sum(p.rows for p in parts))
        else:
            _distribute(parts, outputs)
            self._observe(lane, parts, started)
        finally:
            if buffers is not None:
                lane.give_back(buffers)
            lane.running -= 1
            self._running[lane.graph] -= 1
            self._forget_if_idle(lane)
            self._dispatch_soon()

    def _forget_if_idle(self, lane: Lane) -> None:
        """Lets go of a lane of a size that one client happened to ask for, so that sizes do not pile up."""
        if lane.dynamic and not lane.running and not lane.pending:
            self._lanes = {key: kept for key, kept in self._lanes.items() if kept is not lane}

    def _observe(self, lane: Lane, parts: list[Part], started: float) -> None:
        rows = sum(part.rows for part in parts)
        self._metrics.call_seconds.labels(lane.graph).observe(monotonic() - started)
        self._metrics.batch_rows.labels(lane.graph).observe(rows)
        self._metrics.rows.labels(lane.graph).inc(rows)
        for part in parts:
            if part.start == 0:
                wait = part.entry.started - part.entry.submitted
                self._metrics.queue_seconds.labels(lane.graph).observe(wait)

    def _count_pending(self) -> None:
        self._metrics.rows_pending.set(sum(lane.pending for lane in self._waiting))


def _distribute(parts: list[Part], outputs: Tensors) -> None:
    now = monotonic()
    at = 0
    for part in parts:
        rows = {name: array[at : at + part.rows] for name, array in outputs.items()}
        part.entry.receive(part, rows, now)
        at += part.rows


def _failure(error: Exception, lane: Lane) -> ServingError:
    """An error of its own for each request, since a traceback belongs to one."""
    if isinstance(error, ServingError):
        return ServingError(error.code, error.message, field=error.field, retry_after=error.retry_after)
    return ServingError(Code.INTERNAL, f"the backend failed to compute {lane.graph}; the log says why")
