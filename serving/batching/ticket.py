"""A request on its way through the engine."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from serving.batching.policy import size_class
from serving.batching.throughput import Throughput


@dataclass(frozen=True, kw_only=True)
class Work:
    """Calls of one graph that a request is going to make, one after the other."""

    graph: str
    """The graph."""
    rows: int
    """Rows of each call."""
    calls: int = 1
    """Number of calls."""


@dataclass(kw_only=True, eq=False)
class Ticket:
    """One request: whose it is, by when, what it is expected to cost and what it has cost so far."""

    version: int
    """Version of the graphs that it calls."""
    deadline: float
    """When nobody waits for it any more, in seconds of `time.monotonic`."""
    client: str = ""
    """Who asks, for fairness between clients."""
    weight: float = 1.0
    """Share of its client's calls of this priority: 8 is served eight times as much as 1."""
    work: Sequence[Work] = ()
    """Calls that it is going to make."""
    expected_seconds: float = 0.0
    """Compute time of all its rows, as far as it is known beforehand."""
    expected_duration: float = 0.0
    """Time from its first call to its last if it never waits."""
    due: float = math.inf
    """When it is done if everybody who is under way gets an equal part of the machine; see `share_alike`."""
    call_durations: dict[str, float] = field(default_factory=dict)
    """The part of that which is one call's, by graph."""
    done_duration: float = 0.0
    """The part of `expected_duration` that its calls have behind them, whatever time they really took."""
    charged_seconds: float = 0.0
    """Its part of the batches that its rows were in, at the measured cost."""
    queue_seconds: float = 0.0
    """Time that its calls have waited for an instance."""
    compute_seconds: float = 0.0
    """Time that its calls have taken from their first row to their last."""
    rows: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Rows that were computed for it, by graph."""
    backlog: Backlog | None = None
    """Where what is left of it is counted while it is under way."""

    @property
    def size_seconds(self) -> float:
        """Compute time of the whole request, as far as it is known."""
        expected, charged = self.expected_seconds, self.charged_seconds
        return expected if expected > charged else charged

    @property
    def size(self) -> int:
        """Size class, for the turns."""
        return size_class(self.size_seconds)

    @property
    def seconds_left(self) -> float:
        """Compute time that its rows are still expected to take."""
        left = self.expected_seconds - self.charged_seconds
        return left if left > 0 else 0.0

    @property
    def duration_left(self) -> float:
        """Time that the rest of its calls take if it never waits."""
        left = self.expected_duration - self.done_duration
        return left if left > 0 else 0.0

    @property
    def latest_start(self) -> float:
        """When its next call must begin for it to be done by its deadline."""
        return self.deadline - self.duration_left

    def charge(self, seconds: float) -> None:
        """It has had that much compute time."""
        left = self.seconds_left
        self.charged_seconds += seconds
        if self.backlog is not None:
            self.backlog.seconds -= left - self.seconds_left

    def share_alike(self, now: float, sharers: float) -> None:
        """It has come, and shares an instance with so many in all."""
        if self.expected_duration:
            self.due = now + max(1.0, sharers) * self.expected_duration

    def expect_nothing(self) -> None:
        """Forgets what it was expected to cost, so that it is computed up to its deadline."""
        self.expected_seconds = self.expected_duration = 0.0
        self.due = math.inf
        self.call_durations.clear()

    def hopeless(self, now: float) -> bool:
        """Whether nobody will wait for the result: not even at twice the measured speed is it in time."""
        return self.deadline <= now + self.duration_left / 2


class Backlog:
    """The requests under way, and the compute time that they are still expected to take."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.throughput = Throughput()
        self.tickets: set[Ticket] = set()

    def takes(self, seconds: float) -> float:
        """Time of an instance that so much compute takes while others are busy too."""
        return seconds / self.throughput.share

    def add(self, ticket: Ticket) -> None:
        """A request has come."""
        self.tickets.add(ticket)
        self.seconds += ticket.seconds_left
        ticket.backlog = self

    def remove(self, ticket: Ticket) -> None:
        """It has gone, done or not."""
        self.tickets.discard(ticket)
        ticket.backlog = None
        # Sums of floats drift; with nobody there it is zero again.
        self.seconds = self.seconds - ticket.seconds_left if self.tickets else 0.0
