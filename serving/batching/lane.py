"""A lane: rows of many requests that may share a call."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.batching.cost import CostTable
from serving.batching.policy import LARGEST_SIZE, Kind, Queue, Shares, Turn
from serving.batching.slack import Slack, Urgency
from serving.batching.ticket import Ticket
from serving.batching.under_way import UnderWay
from serving.calls import Tensors
from serving.errors import Code, ServingError
from serving.observing.tracing import Traced

_GUESSED_ROW_SECONDS = 0.001  # charged until the first call has been measured
_HAIR = 0.02  # of a full batch


@dataclass(kw_only=True, eq=False, slots=True)
class Entry:
    """One call of a request. Large ones are computed in parts, by several batches."""

    run: UnderWay
    """The program whose call it is."""
    inputs: Tensors
    """Input tensors by name, each [rows, ...]."""
    rows: int
    """Number of rows that are to be computed."""
    submitted: float = field(default_factory=monotonic)
    """When it was put into the lane."""
    started: float = 0.0
    """When its first rows were taken."""
    kind: Kind = (0, "")
    """Its kind when it was put there."""
    taken: int = 0
    """Rows that batches have taken."""
    computed: int = 0
    """Rows that have come back, or are never going to."""
    outputs: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    """Where the outputs of several batches come together."""
    step: Traced | None = None
    """Its span, where the request is traced."""
    ticket: Ticket = field(init=False)
    """The request that it is made for."""

    def __post_init__(self) -> None:
        self.ticket = self.run.ticket

    @property
    def waited(self) -> float:
        """Seconds from when it was put into the lane to when its first rows were taken."""
        return self.started - self.submitted

    def take(self, room: int, now: float) -> Part:
        """The next rows, at most `room`."""
        if not self.taken:
            self.started = now
            self.ticket.queue_seconds += self.waited
        part = Part(entry=self, start=self.taken, rows=min(self.rows - self.taken, room))
        self.taken += part.rows
        return part

    def receive(self, part: Part, outputs: Tensors, now: float) -> Tensors | None:
        """Takes the rows of a part that somebody waits for; with the last of them the outputs of the call."""
        if part.rows < self.rows:
            for name, rows in outputs.items():
                if name not in self.outputs:
                    self.outputs[name] = np.empty((self.rows, *rows.shape[1:]), rows.dtype)
                self.outputs[name][part.start : part.stop] = rows
        self.drop(part)
        if self.computed < self.rows:
            return None
        self.ticket.compute_seconds += now - self.started
        return self.outputs or outputs

    def drop(self, part: Part) -> None:
        """The rows of a part need not be computed any more: they are, or have failed, or nobody waits."""
        self.computed += part.rows
        self._let_go()

    def withdraw(self) -> int:
        """Has no more of its rows taken, and returns how many that were."""
        left = self.rows - self.taken
        self.rows = self.taken
        self._let_go()
        return left

    def _let_go(self) -> None:
        if self.computed == self.rows:
            self.inputs = {}  # queues may remember the call for a while


@dataclass(kw_only=True, eq=False, slots=True)
class Part:
    """Rows of an entry that one batch computes."""

    entry: Entry
    """The call."""
    start: int
    """First row."""
    rows: int
    """Number of rows."""

    @property
    def stop(self) -> int:
        """Row after the last."""
        return self.start + self.rows


@dataclass(kw_only=True, eq=False, slots=True)
class Batch:
    """Rows that go into one call of a graph."""

    lane: Lane
    """Where they waited."""
    parts: list[Part]
    """Whose they are."""
    rows: int
    """Number of rows."""
    size: int
    """Size class of the longest request in it."""
    first: bool = False
    """Whether it is computed besides those that the instances are busy with."""
    begun: list[Entry] = field(init=False)
    """The calls whose first rows are in it."""

    def __post_init__(self) -> None:
        self.begun = [part.entry for part in self.parts if part.start == 0]

    @property
    def wanted(self) -> bool:
        """Whether anybody waits for it still."""
        return any(not part.entry.run.future.done() for part in self.parts)


class Lane:
    """The calls that wait for one graph, version and shape of row, and the arrays of its batches."""

    def __init__(
        self,
        *,
        graph: str,
        version: int,
        dynamic: bool,
        max_rows: int,
        min_rows: int,
        cost: CostTable,
        stepwise: bool = False,
    ) -> None:
        """`dynamic` where there is one for each size of picture, `stepwise` where a request calls the graph
        again and again."""
        self.graph = graph
        self.version = version
        self.dynamic = dynamic
        self.stepwise = stepwise
        self.max_rows = max_rows
        self.min_rows = min_rows
        self.cost = cost
        self.pending = 0
        self.running = 0
        self.computing = 0
        self.usual_from = 0.0  # when calls tell what they cost again, after an outage
        self._queue: Queue[Entry] = Queue(_gone, _latest_start)
        self._buffers: list[dict[str, NDArray[Any]]] = []

    def put(self, entry: Entry) -> None:
        """Adds a call."""
        ticket = entry.ticket
        entry.kind = (ticket.size, self.graph)
        self._queue.put(
            entry,
            client=ticket.client,
            kind=entry.kind,
            deadline=min(ticket.deadline, ticket.due),
        )
        self.pending += entry.rows

    def withdraw(self, entry: Entry) -> None:
        """Forgets the rows of a call whose caller has gone; those that are being computed come to nothing."""
        self.pending -= entry.withdraw()
        if not self.pending:
            self._queue.clear()

    def turn(self, shares: Shares) -> Turn | None:
        """The turn of whoever is next here."""
        first = self._queue.turn(shares)
        return first[0] if first else None

    def sizes(self) -> tuple[int, int]:
        """The least and the greatest size class that may wait here."""
        return self._queue.sizes()

    def latest_start(self, now: float) -> float:
        """When the call must begin that has the least time left."""
        first = self._queue.latest_start(now - self.longest())
        return first[0] if first else math.inf

    def seconds(self) -> float:
        """Compute time of all that waits."""
        return self.pending * self.cost.row_seconds()

    def longest(self) -> float:
        """Time of a full batch."""
        return self.cost.call_seconds()

    def take(
        self,
        room: int,
        shares: Shares,
        now: float,
        *,
        urgency: Urgency | None = None,
        largest: int = LARGEST_SIZE,
    ) -> list[Part]:
        """The next rows, at most `room`, of calls that somebody still waits for.

        With `urgency` those that must begin before its horizon, or else in turn those of requests up to the
        size class `largest`.
        """
        parts = self._take_urgent(room, shares, now, urgency) if urgency else []
        return parts or self._take_in_turn(room, shares, now, largest)

    def _take_in_turn(self, room: int, shares: Shares, now: float, largest: int) -> list[Part]:
        parts: list[Part] = []
        while room > 0 and self.pending and (first := self._queue.turn(shares, largest)) is not None:
            entry = first[1]
            if self._given_up(entry, now):
                continue
            if not parts:
                shares.serve(entry.ticket.client, entry.kind)
            parts.append(self._take(entry, room, shares, now))
            room -= parts[-1].rows
        return parts

    def _take_urgent(self, room: int, shares: Shares, now: float, urgency: Urgency) -> list[Part]:
        """The most pressing first. Others join it as far as that lets it be in time, and, where all could be
        by themselves, whoever must be done before them too. Where those that are pressing leave room, and
        everybody has the time, the rest is filled in turn."""
        parts: list[Part] = []
        rows = alone = 0
        slack: Slack | None = None
        while rows < room and self.pending:
            first = self._queue.latest_start(now - self.longest())
            if first is None or first[0] > urgency.horizon:
                break
            entry = first[1]
            if self._given_up(entry, now):
                continue
            if not parts:
                alone = min(room, entry.rows - entry.taken)
                room = self._joined(alone, room, entry.ticket.latest_start - now)
            else:
                slack = slack or urgency.slack(now + self.cost.seconds(alone))
                if slack.enough:  # else they are in time together or not at all
                    spare = slack.before(entry.ticket.deadline) - self.longest()
                    room = min(room, self._joined(alone, room, max(0.0, spare)))
                if rows >= room:
                    break
            parts.append(self._take(entry, room - rows, shares, now))
            rows += parts[-1].rows
        if parts and rows < room and self.pending:
            slack = slack or urgency.slack(now + self.cost.seconds(alone))
            if slack.enough:
                spare = slack.before(math.inf) - self.longest()
                room = min(room, self._joined(alone, room, max(0.0, spare)))
                parts += self._take_in_turn(room - rows, shares, now, LARGEST_SIZE)
        return parts

    def _joined(self, alone: int, room: int, spare: float) -> int:
        """How large a batch may become that begins with `alone` rows and may take so much longer than those.

        Where it is late by a hair, as it is when that time has been used up, nobody joins; where it is late
        in any case, everybody may.
        """
        longest = self.longest()
        if spare < -_HAIR * longest:
            return room
        return max(alone, self.cost.within(self.cost.seconds(alone) + spare, room)) if spare >= 0 else alone

    def _given_up(self, entry: Entry, now: float) -> bool:
        """Fails a call whose request cannot be in time any more."""
        if not entry.ticket.hopeless(now):
            return False
        entry.run.fail(ServingError(Code.DEADLINE_EXCEEDED, "the deadline passed in the queue"))
        self.withdraw(entry)
        return True

    def _take(self, entry: Entry, room: int, shares: Shares, now: float) -> Part:
        """Takes the next rows of a call, and charges them."""
        part = entry.take(room, now)
        self._come_nearer(part)
        ticket = entry.ticket
        seconds = part.rows * (self.cost.row_seconds() or _GUESSED_ROW_SECONDS)
        ticket.charge(seconds)
        shares.charge(ticket.client, entry.kind, seconds, size=ticket.size_seconds, weight=ticket.weight)
        self.pending -= part.rows
        return part

    def _come_nearer(self, part: Part) -> None:
        """The request has this part behind it: what is left of it must begin later than it had to."""
        entry, ticket = part.entry, part.entry.ticket
        duration = ticket.call_durations.get(self.graph, 0.0)
        if part.rows == entry.rows:
            ticket.done_duration += duration
            return
        whole = self.cost.duration(entry.rows)
        if whole:
            ahead, behind = entry.rows - part.start, entry.rows - part.stop
            done = (self.cost.duration(ahead) - self.cost.duration(behind)) / whole
            ticket.done_duration += done * duration

    def join(self, parts: list[Part], rows: int) -> tuple[Tensors, dict[str, NDArray[Any]] | None]:
        """The inputs of a batch, and the buffers to give back after it, if any were needed.

        The rows of a single part are passed as they are, without a copy. A batch below `min_rows` is filled
        up with copies of its last row.
        """
        if len(parts) == 1 and rows >= self.min_rows:
            (part,) = parts
            return {name: a[part.start : part.stop] for name, a in part.entry.inputs.items()}, None
        buffers = self._buffers.pop() if self._buffers else self._allocate(parts[0].entry.inputs)
        padded = max(rows, self.min_rows)
        for name, buffer in buffers.items():
            taken = [part.entry.inputs[name][part.start : part.stop] for part in parts]
            np.concatenate(taken, out=buffer[:rows])
            if rows < padded:
                buffer[rows:padded] = buffer[rows - 1]
        return {name: buffer[:padded] for name, buffer in buffers.items()}, buffers

    def give_back(self, buffers: dict[str, NDArray[Any]]) -> None:
        """Keeps the arrays for the next batch."""
        self._buffers.append(buffers)

    def _allocate(self, like: Tensors) -> dict[str, NDArray[Any]]:
        rows = max(self.max_rows, self.min_rows)
        return {name: np.empty((rows, *array.shape[1:]), array.dtype) for name, array in like.items()}


def _gone(entry: Entry) -> bool:
    return entry.taken == entry.rows or entry.run.future.done()


def _latest_start(entry: Entry) -> float:
    return entry.ticket.latest_start
