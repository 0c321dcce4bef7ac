"""A lane: rows of many requests that may share a call, in the order of their coming."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.calls import Tensors
from serving.errors import Code, ServingError


@dataclass(kw_only=True)
class Ticket:
    """One request on its way through the engine, and what its calls have cost so far."""

    version: int
    """Version of the graphs that it calls."""
    deadline: float
    """When nobody waits for it any more, in seconds of `time.monotonic`."""
    queue_seconds: float = 0.0
    """Time that its calls have waited for an instance."""
    compute_seconds: float = 0.0
    """Time that its calls have taken from their first row to their last."""


@dataclass(kw_only=True, eq=False, slots=True)
class Entry:
    """One call of a request. Large ones are computed in parts, by several batches."""

    inputs: Tensors
    """Input tensors by name, each [rows, ...]."""
    rows: int
    """Number of rows."""
    ticket: Ticket
    """Whose call it is."""
    future: asyncio.Future[Tensors]
    """Resolves to the outputs; done before its time when the caller has gone."""
    submitted: float = field(default_factory=monotonic)
    """When it was put into the lane."""
    started: float = 0.0
    """When its first rows were taken."""
    taken: int = 0
    """Rows that batches have taken."""
    computed: int = 0
    """Rows that have come back."""
    outputs: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    """Where the outputs of several batches come together."""

    def take(self, room: int, now: float) -> Part:
        """The next rows, at most `room`."""
        if not self.taken:
            self.started = now
            self.ticket.queue_seconds += now - self.submitted
        part = Part(entry=self, start=self.taken, stop=min(self.rows, self.taken + room))
        self.taken = part.stop
        return part

    def receive(self, part: Part, outputs: Tensors, now: float) -> None:
        """Takes the rows of a part; with the last of them the call is answered."""
        if self.future.done():
            return
        self.computed += part.rows
        if part.rows < self.rows:
            for name, rows in outputs.items():
                if name not in self.outputs:
                    self.outputs[name] = np.empty((self.rows, *rows.shape[1:]), rows.dtype)
                self.outputs[name][part.start : part.stop] = rows
        if self.computed == self.rows:
            self.ticket.compute_seconds += now - self.started
            self.future.set_result(self.outputs or outputs)

    def fail(self, error: ServingError) -> None:
        """Answers the call with an error, unless it is answered."""
        if not self.future.done():
            self.future.set_exception(error)


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Rows of an entry that one batch computes."""

    entry: Entry
    """The call."""
    start: int
    """First row."""
    stop: int
    """Row after the last."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.stop - self.start


class Lane:
    """The queue of one graph, version and shape of row, with the arrays that its batches are joined in."""

    def __init__(self, *, graph: str, version: int, dynamic: bool, max_rows: int, min_rows: int) -> None:
        self.graph = graph
        self.version = version
        self.dynamic = dynamic
        self.max_rows = max_rows
        self.min_rows = min_rows
        self.pending = 0
        self.running = 0
        self._entries: deque[Entry] = deque()
        self._buffers: list[dict[str, NDArray[Any]]] = []

    def put(self, entry: Entry) -> None:
        """Adds a call at the end."""
        self._entries.append(entry)
        self.pending += entry.rows

    def withdraw(self, entry: Entry) -> None:
        """Forgets the rows of a call whose caller has gone; those that are being computed come to nothing."""
        self.pending -= entry.rows - entry.taken
        entry.taken = entry.rows
        if not self.pending:
            self._entries.clear()

    def take(self, room: int) -> list[Part]:
        """The next rows, at most `room`, of calls that somebody still waits for."""
        now = monotonic()
        parts = []
        while room and self._entries:
            entry = self._entries[0]
            if not entry.future.done() and entry.ticket.deadline <= now:
                entry.fail(ServingError(Code.DEADLINE_EXCEEDED, "the deadline passed in the queue"))
            if entry.future.done():
                self._entries.popleft()
                self.withdraw(entry)
            else:
                part = entry.take(room, now)
                parts.append(part)
                room -= part.rows
                self.pending -= part.rows
                if entry.taken == entry.rows:
                    self._entries.popleft()
        return parts

    def join(self, parts: list[Part]) -> tuple[Tensors, dict[str, NDArray[Any]] | None]:
        """The inputs of a batch, and the buffers to give back after it, if any were needed.

        The rows of a single part are passed as they are, without a copy. A batch below `min_rows` is filled
        up with copies of its last row.
        """
        rows = sum(part.rows for part in parts)
        if len(parts) == 1 and rows >= self.min_rows:
            (part,) = parts
            return {name: a[part.start : part.stop] for name, a in part.entry.inputs.items()}, None
        buffers = self._buffers.pop() if self._buffers else self._allocate(parts[0].entry.inputs)
        padded = max(rows, self.min_rows)
        for name, buffer in buffers.items():
            at = 0
            for part in parts:
                buffer[at : at + part.rows] = part.entry.inputs[name][part.start : part.stop]
                at += part.rows
            buffer[at:padded] = buffer[at - 1]
        return {name: buffer[:padded] for name, buffer in buffers.items()}, buffers

    def give_back(self, buffers: dict[str, NDArray[Any]]) -> None:
        """Keeps the arrays for the next batch."""
        self._buffers.append(buffers)

    def _allocate(self, like: Tensors) -> dict[str, NDArray[Any]]:
        rows = max(self.max_rows, self.min_rows)
        return {name: np.empty((rows, *array.shape[1:]), array.dtype) for name, array in like.items()}
