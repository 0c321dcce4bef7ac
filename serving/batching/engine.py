"""The engine: waiting rows go to the backend the moment it has an instance free."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic
from typing import Any

from serving.backends import Backend
from serving.batching.company import Company
from serving.batching.cost import BESIDES_A_PASS, BESIDES_THE_CALL, CostTable
from serving.batching.dispatch import Dispatcher
from serving.batching.lane import Batch, Entry, Lane
from serving.batching.statistics import Statistics
from serving.batching.ticket import Backlog, Ticket
from serving.batching.under_way import UnderWay
from serving.calls import Call, Program, Result, Tell, Tensors
from serving.errors import Code, ServingError
from serving.manifest import Manifest
from serving.observing.metrics import Metrics
from serving.observing.tracing import begin_step, call_span, current, end_step, exemplar, leave_queue

log = logging.getLogger(__name__)

LaneKey = tuple[str, int, tuple[tuple[int, ...], ...]]
"""Graph, version, and the shapes of a row in the order of the manifest's inputs."""

_TABLES = 1024
_MOMENT = 0.0005  # seconds: to have another thread compute takes 0.2 ms, there and back
_AFTER_OUTAGE = 2.0  # seconds in which a server that came back is slower than it is going to be
_NOBODY = contextvars.Context()
"""No request's context: what is dispatched is everybody's."""


class Engine:
    """Joins calls of all requests into batches. Lives in one event loop.

    There is one lane for each graph, version and shape of row, where calls wait until the dispatcher takes
    their rows into a batch. `manifests` are those of the graphs that may be called, by graph and version;
    they come and go while it runs.
    """

    def __init__(
        self,
        backend: Backend,
        manifests: Mapping[tuple[str, int], Manifest],
        *,
        max_batch_bytes: int,
        metrics: Metrics,
    ) -> None:
        self._backend = backend
        self._manifests = manifests
        self._max_batch_bytes = max_batch_bytes
        self._metrics = metrics
        self.backlog = Backlog()
        self.statistics = Statistics()
        self._dispatcher = Dispatcher(backend, self.backlog, start=self._start, later=self._later)
        self._costs: dict[LaneKey, CostTable] = {}
        self._lanes: dict[LaneKey, Lane] = {}
        self._calls: dict[UnderWay, tuple[Lane, Entry]] = {}
        self._dispatch_due = False
        self._company = Company()
        self._batch_ended = asyncio.Event()
        self._batches: dict[asyncio.Task[None], Batch] = {}
        self._closed = False
        # Asked by a scrape, in a thread of its own.
        metrics.rows_pending.set_function(lambda: self._dispatcher.pending)

    def run(
        self, program: Program[Result], ticket: Ticket, tell: Tell | None = None
    ) -> asyncio.Future[Result]:
        """Begins a program: what it returns, its calls computed and its progress told as it comes.

        From one call to the next it is led by whatever computed the call, so that a step costs no turn of the
        event loop. Cancelling withdraws its rows; batch mates never notice.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        run = UnderWay(program=program, ticket=ticket, tell=tell, traced=current(), future=future)
        future.add_done_callback(partial(self._leave, run))
        self._advance(run, None)
        return future

    def slots(self) -> int:
        """Calls that run at a time."""
        return self._backend.slots()

    def knows(self, graph: str, version: int) -> bool:
        """Whether that version of a graph may be called."""
        return (graph, version) in self._manifests

    def cost(self, graph: str, version: int) -> CostTable | None:
        """What calls of a graph cost; None where that depends on the size of the picture."""
        manifest = self._manifests[graph, version]
        return None if manifest.dynamic else self._table((graph, version, manifest.row_shapes))

    def expect(self, ticket: Ticket) -> None:
        """Notes what a request that has come is going to cost, as far as that has been measured."""
        slots = self._backend.slots()
        for work in ticket.work:
            cost = self.cost(work.graph, ticket.version)
            if cost is not None:
                duration = ticket.call_durations[work.graph] = cost.duration(work.rows, slots)
                ticket.expected_duration += work.calls * duration
                ticket.expected_seconds += work.calls * work.rows * cost.row_seconds()
        ticket.share_alike(monotonic(), (len(self.backlog.tickets) + 1) / slots)

    def row_bytes(self, graph: str, version: int) -> int:
        """Bytes of a row's inputs and outputs; axes that are the client's to choose count as 1."""
        return self._manifests[graph, version].row_bytes

    async def idle(self) -> None:
        """Until nothing runs and nothing waits."""
        while not self._dispatcher.idle:
            self._batch_ended.clear()
            await self._batch_ended.wait()

    async def measure(self, graph: str, version: int, inputs: Tensors) -> float:
        """Seconds of one call by itself, which an instance is taken for."""
        self._dispatcher.occupy(graph, 1)
        try:
            return (await self._backend.infer(graph, version, inputs)).seconds
        finally:
            self._dispatcher.occupy(graph, -1)
            self._dispatch_soon()

    def inherit(self, graph: str, version: int, before: int) -> None:
        """Takes a new version to cost what the one before it does, until it has been measured itself."""
        for key, table in list(self._costs.items()):
            if key[:2] == (graph, before) and (graph, version, key[2]) not in self._costs:
                self._costs[graph, version, key[2]] = table.heir()

    def forget(self, graph: str, version: int) -> None:
        """Lets go of what was kept for a version that nobody calls any more."""
        self._lanes = {key: lane for key, lane in self._lanes.items() if key[:2] != (graph, version)}
        self._costs = {key: table for key, table in self._costs.items() if key[:2] != (graph, version)}
        self.statistics.forget(graph, version)

    async def close(self) -> None:
        """Begins nothing new, and waits for the batches under way."""
        self._closed = True
        for entry in self._dispatcher.drain():
            entry.run.fail(ServingError(Code.UNAVAILABLE, "the gateway is stopping; ask again"))
        while self._batches:
            await asyncio.wait(self._batches)

    def _advance(self, run: UnderWay, reply: Tensors | None) -> None:
        """Leads a program to its next call, which waits then, or to its end."""
        call = run.advance(reply)
        if call is None:
            return
        try:
            self._put(run, call)
        except Exception as error:
            run.fail(error)

    def _put(self, run: UnderWay, call: Call) -> None:
        if self._closed:
            raise ServingError(Code.UNAVAILABLE, "the gateway is stopping; ask again elsewhere")
        lane = self._lane(call, run.ticket.version)
        step = begin_step(run.traced, call.graph, call.rows)
        entry = Entry(run=run, inputs=call.inputs, rows=call.rows, step=step)
        self._calls[run] = lane, entry
        self._dispatcher.put(lane, entry)
        self._dispatch_soon()

    def _answer(self, run: UnderWay, outputs: Tensors, now: float) -> None:
        """The present call of a program has been computed."""
        lane, entry = self._calls.pop(run)
        end_step(entry.step)
        self.statistics.of(lane.graph, lane.version).answered(now - entry.submitted)
        self._advance(run, outputs)

    def _leave(self, run: UnderWay, _: asyncio.Future[Any]) -> None:
        """Withdraws the present call of a program that nobody waits for any more, if it has one."""
        if run in self._calls:
            lane, entry = self._calls.pop(run)
            self.statistics.of(lane.graph, lane.version).fail.add(monotonic() - entry.submitted)
            self._abandon(entry)
            lane.withdraw(entry)
            end_step(entry.step)
            self._dispatch_soon()  # there may be nothing left to wait for
        run.program.close()

    def _lane(self, call: Call, version: int) -> Lane:
        manifest = self._manifests[call.graph, version]
        key = (call.graph, version, tuple([call.inputs[spec.name].shape[1:] for spec in manifest.inputs]))
        lane = self._lanes.get(key)
        if lane is None:
            row_bytes = sum(array.nbytes for array in call.inputs.values()) // call.rows
            lane = self._lanes[key] = Lane(
                graph=call.graph,
                version=version,
                dynamic=manifest.dynamic,
                max_rows=max(1, min(manifest.max_batch_size, self._max_batch_bytes // row_bytes)),
                min_rows=manifest.versions[version].min_rows,
                cost=self._table(key),
                stepwise=_stepwise(manifest),
            )
        return lane

    def _table(self, key: LaneKey) -> CostTable:
        table = self._costs.get(key)
        if table is None:
            if len(self._costs) >= _TABLES:
                del self._costs[next(iter(self._costs))]
            stepwise = _stepwise(self._manifests[key[:2]])
            table = self._costs[key] = CostTable(BESIDES_THE_CALL if stepwise else BESIDES_A_PASS)
        return table

    def _dispatch_soon(self) -> None:
        """Dispatches when all that were woken together have put in their next call: so they stay together."""
        if not self._dispatch_due:
            self._dispatch_due = True
            asyncio.get_running_loop().call_soon(self._dispatch, context=_NOBODY)

    def _dispatch(self) -> None:
        rows = self._dispatcher.pending
        if rows and self._dispatcher.sociable and self._company.may_come(rows):
            asyncio.get_running_loop().call_soon(self._dispatch, context=_NOBODY)
            return
        self._dispatch_due = False
        self._dispatcher.dispatch(together=self._company.begins(rows))
        self._batch_ended.set()

    def _later(self, seconds: float, function: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(seconds, function, context=_NOBODY)

    def _start(self, batch: Batch) -> None:
        task = asyncio.create_task(self._compute(batch))
        self._batches[task] = batch
        task.add_done_callback(self._batches.pop)

    def _abandon(self, entry: Entry) -> None:
        """Ends the batches of a call that nobody waits for any more, unless it has mates in them."""
        for task, batch in self._batches.items():
            if not batch.wanted and any(part.entry is entry for part in batch.parts):
                task.cancel()

    async def _compute(self, batch: Batch) -> None:
        lane = batch.lane
        for entry in batch.begun:
            leave_queue(entry.step, lane.graph, entry.waited)
        try:
            await self._infer(batch)
        finally:
            self._dispatcher.ended(batch)
            self._forget_if_idle(lane)
            self._dispatch_soon()

    async def _infer(self, batch: Batch) -> None:
        """Computes a batch. If it fails, each call in it is computed alone, and only those at fault fail."""
        lane, parts = batch.lane, batch.parts
        began = monotonic()
        inputs, buffers = lane.join(parts, batch.rows)
        join = monotonic() - began
        steps = [part.entry.step for part in parts]
        try:
            with call_span(lane.graph, lane.version, batch.rows, steps):
                outputs, seconds = await self._backend.infer(
                    lane.graph, lane.version, inputs, first=batch.first, here=self._here(batch)
                )
        except asyncio.CancelledError:
            for part in parts:
                part.entry.drop(part)
            raise
        except Exception as error:
            self._metrics.graph(lane.graph).call_failures.inc()
            if isinstance(error, ServingError) and error.code == Code.UNAVAILABLE:
                lane.usual_from = monotonic() + _AFTER_OUTAGE
            if not isinstance(error, ServingError):
                log.exception("a call of %s with %d rows failed", lane.graph, batch.rows)
            if isinstance(error, ServingError) or len(parts) == 1:
                for part in parts:
                    part.entry.run.fail(_failure(error, lane))
                    part.entry.drop(part)
                return
        else:
            ended = monotonic()
            waits = [entry.waited for entry in batch.begun]
            self._distribute(batch, outputs)
            self._observe(batch, seconds)
            self.statistics.of(lane.graph, lane.version).batch(
                batch.rows, waits, join, seconds, monotonic() - ended
            )
            return
        finally:
            if buffers is not None:
                lane.give_back(buffers)
        for part in parts:
            if part.entry.run.future.done():
                part.entry.drop(part)
            else:
                await self._infer(Batch(lane=lane, parts=[part], rows=part.rows, size=batch.size))

    def _here(self, batch: Batch) -> bool:
        """Whether the event loop's own thread may compute a batch: a moment, when nobody else is there."""
        alone = len(self._calls) == 1 and len(self.backlog.tickets) <= 1
        return alone and 0 < batch.lane.cost.seconds(batch.rows) < _MOMENT

    def _forget_if_idle(self, lane: Lane) -> None:
        """Lets go of a lane of a size that one client happened to ask for, so that sizes do not pile up."""
        if lane.dynamic and not lane.running and not lane.pending:
            self._lanes = {key: kept for key, kept in self._lanes.items() if kept is not lane}

    def _distribute(self, batch: Batch, outputs: Tensors) -> None:
        graph = batch.lane.graph
        now = monotonic()
        at = 0
        for part in batch.parts:
            entry = part.entry
            if entry.run.future.done():
                self._metrics.graph(graph).rows_in_vain.inc(part.rows)
                entry.drop(part)
            else:
                rows = {name: array[at : at + part.rows] for name, array in outputs.items()}
                entry.ticket.rows[graph] += part.rows
                whole = entry.receive(part, rows, now)
                if whole is not None:
                    self._answer(entry.run, whole, now)
            at += part.rows

    def _observe(self, batch: Batch, seconds: float) -> None:
        lane = batch.lane
        # With more calls than instances each takes longer than it costs, and so it does around an outage.
        if not batch.first and monotonic() >= lane.usual_from:
            lane.cost.observe(max(batch.rows, lane.min_rows), seconds)
        self._dispatcher.earn(seconds)
        metrics = self._metrics.graph(lane.graph)
        metrics.call_seconds.observe(seconds, exemplar(batch.parts[0].entry.step))
        metrics.batch_rows.observe(batch.rows)
        metrics.rows.inc(batch.rows)
        if batch.rows < lane.min_rows:
            metrics.rows_padded.inc(lane.min_rows - batch.rows)
        begun = batch.begun
        metrics.steps.inc(len(begun))
        for entry in begun:
            metrics.queue_seconds.observe(entry.waited, exemplar(entry.step))


def _stepwise(manifest: Manifest) -> bool:
    """Whether a request calls the graph again and again."""
    return manifest.sampling is not None


def _failure(error: Exception, lane: Lane) -> ServingError:
    """An error of its own for each request, since a traceback belongs to one."""
    if isinstance(error, ServingError):
        return error.again()
    return ServingError(Code.INTERNAL, f"the backend failed to compute {lane.graph}; the log says why")
