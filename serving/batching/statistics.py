"""What each graph has done since it was loaded: counted by the engine, for whoever asks."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(kw_only=True, slots=True)
class Duration:
    """How often something happened, and how long it took in all."""

    count: int = 0
    """Number of times."""
    seconds: float = 0.0
    """Time of all of them together."""

    def add(self, seconds: float, count: int = 1) -> None:
        """It happened `count` times more, and took so long."""
        self.count += count
        self.seconds += seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Phases:
    """The parts of a batch's time."""

    join: Duration = field(default_factory=Duration)
    """Putting the inputs together."""
    infer: Duration = field(default_factory=Duration)
    """Computing."""
    split: Duration = field(default_factory=Duration)
    """Handing the outputs out."""

    def add(self, join: float, infer: float, split: float, count: int = 1) -> None:
        """A batch took these seconds for each of `count`."""
        self.join.add(count * join, count)
        self.infer.add(count * infer, count)
        self.split.add(count * split, count)


@dataclass(kw_only=True, slots=True)
class GraphStatistics:
    """What one version of a graph has done."""

    last: float = 0.0
    """When a call was last answered, in seconds since 1970; 0 for never."""
    rows: int = 0
    """Rows computed, padding left out."""
    batches: int = 0
    """Batches computed."""
    success: Duration = field(default_factory=Duration)
    """Calls answered, from when they came."""
    fail: Duration = field(default_factory=Duration)
    """Calls that ended in an error."""
    queue: Duration = field(default_factory=Duration)
    """Time that calls waited for an instance."""
    phases: Phases = field(default_factory=Phases)
    """Time of batches, counted for each call in them."""
    by_rows: dict[int, Phases] = field(default_factory=dict)
    """Time of batches by their number of rows, counted once for each batch."""

    def batch(self, rows: int, waits: list[float], join: float, infer: float, split: float) -> None:
        """A batch was computed; `waits` are those of the calls that it began."""
        self.rows += rows
        self.batches += 1
        for wait in waits:
            self.queue.add(wait)
        self.phases.add(join, infer, split, len(waits))
        self.by_rows.setdefault(rows, Phases()).add(join, infer, split)

    def answered(self, seconds: float) -> None:
        """A call was answered after so long."""
        self.last = time.time()
        self.success.add(seconds)


class Statistics:
    """The statistics of every version of every graph that was called."""

    def __init__(self) -> None:
        self._graphs: dict[tuple[str, int], GraphStatistics] = {}

    def of(self, graph: str, version: int) -> GraphStatistics:
        """Those of one version."""
        found = self._graphs.get((graph, version))
        if found is None:
            found = self._graphs[graph, version] = GraphStatistics()
        return found

    def forget(self, graph: str, version: int) -> None:
        """A version that is not there any more; loaded again, it begins at nothing."""
        self._graphs.pop((graph, version), None)
