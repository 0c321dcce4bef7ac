"""What goes to the backend next: batches for its free instances, one ahead, and small ones besides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from time import monotonic

from serving.backends import Backend
from serving.batching.cost import BESIDES_THE_CALL
from serving.batching.lane import Batch, Entry, Lane
from serving.batching.policy import LARGEST_SIZE, Haste, Shares, choose
from serving.batching.slack import Slack, Urgency
from serving.batching.ticket import Backlog

_WORTH_SPLITTING = 0.9
_FAR_SHORTER = 2  # size classes: 16 times
_SHORTLY = 0.15  # of a call's time
_HALF = 0.5
_SHORT_CALL = 10 * BESIDES_THE_CALL
_LONG_WAIT = 0.005  # seconds: what an instance waits for the gateway is little beside it


class Dispatcher:
    """The lanes that wait, the batches under way, and who is next.

    When an instance is free, the lane of whoever is next (see `policy`) gives it a batch, filled in the order
    of turns up to the size beyond which the graph gains nothing (see `cost`). It never waits for company:
    while every instance is busy rows gather, so batches grow with the load. Whatever is to be computed is
    handed to `start`, and `ended` when it is; `later` calls a function after some seconds.
    """

    def __init__(
        self,
        backend: Backend,
        backlog: Backlog,
        *,
        start: Callable[[Batch], None],
        later: Callable[[float, Callable[[], None]], None],
    ) -> None:
        self._backend = backend
        self._backlog = backlog
        self._begin = start
        self._later = later
        self._shares = Shares()
        self._haste = Haste()
        self._waiting: dict[Lane, None] = {}
        self._batches: dict[Batch, None] = {}
        self._running: Counter[str] = Counter()
        self._busy = 0  # the sum of those
        self._overtaking = 0

    @property
    def pending(self) -> int:
        """Rows that wait. May be asked in another thread."""
        return sum([lane.pending for lane in list(self._waiting)])

    @property
    def sociable(self) -> bool:
        """Whether calls could begin now that are short and have room for more rows, each next to nothing.

        Not those of a diffusion's steps: whoever is late there is late at each step, and rows that are led by
        one batch put in their next calls together anyhow.
        """
        if self._busy >= self._backend.slots():
            return False
        lanes = [lane for lane in self._waiting if lane.pending]
        for lane in lanes:
            if not _cheap(lane) or lane.cost.seconds(lane.pending) >= _SHORT_CALL:
                return False
            if lane.pending >= lane.cost.full(lane.max_rows):
                return False
        return bool(lanes)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is computed."""
        return not (self.pending or self._busy or self._overtaking)

    def put(self, lane: Lane, entry: Entry) -> None:
        """A call waits in a lane."""
        self._waiting[lane] = None
        lane.put(entry)
        if entry.kind[0] <= self._short(lane):
            in_full = entry.rows * lane.cost.row_seconds()
            self._haste.ask(max(0.0, lane.cost.seconds(entry.rows) - in_full) + BESIDES_THE_CALL)

    def occupy(self, graph: str, instances: int) -> None:
        """Takes instances for something else than batches, or gives them back where negative."""
        self._running[graph] += instances
        self._busy += instances

    def drain(self) -> list[Entry]:
        """The calls that wait, which nobody is going to compute any more."""
        parts = [
            part for lane in self._waiting for part in lane.take(lane.pending, self._shares, monotonic())
        ]
        self._waiting.clear()
        return [part.entry for part in parts]

    def dispatch(self, *, together: bool = False) -> None:
        """Starts whatever can be started now. Rows that are `together` and cost next to nothing stay so, even
        where instances are idle."""
        while (free := self._backend.slots() - self._busy) > 0:
            chosen = self._next()
            if chosen is None:
                break
            lane, urgency = chosen
            if urgency is None and self._start_short(lane):
                continue
            for batch in range(1 if together and _cheap(lane) else self._spread(lane, free), 0, -1):
                room = min(self._room(lane), -(-lane.pending // batch))
                if not self._start(lane, room, urgency=urgency):  # who waited there has gone
                    self._waiting.pop(lane, None)
                urgency = None
        self._overtake()
        self._run_ahead()

    def ended(self, batch: Batch) -> None:
        """A batch has been computed, or has failed."""
        del self._batches[batch]
        seconds = batch.rows * batch.lane.cost.row_seconds()
        slots = self._backend.slots()
        busy = self._busy >= slots and self.pending > 0
        self._backlog.throughput.ended(seconds, slots, monotonic(), more=busy)
        batch.lane.running -= 1
        batch.lane.computing -= batch.rows
        if batch.first:
            self._overtaking -= 1
        else:
            self.occupy(batch.lane.graph, -1)

    def earn(self, seconds: float) -> None:
        """So much has been computed."""
        self._haste.earn(seconds)

    def _run_ahead(self, share: float = 1.0) -> None:
        """A batch more than there are instances, if that `share` of a full one waits.

        An instance that is done goes on with it at once, while the results of the last batch are given out.
        Where those are awaited by short requests it is not: they would miss it, and be a batch late at each
        of their steps.
        """
        if self._busy == self._backend.slots() and not self._short_come_back():
            chosen = self._next(ahead=1)
            if chosen is not None:
                lane, urgency = chosen
                room = self._room(lane)
                if lane.pending >= share * room:
                    self._start(lane, room, urgency=urgency)

    def _short_come_back(self) -> bool:
        """Whether the batch that is done next leads short requests to their next steps, who would wait longer
        for another instance than this one does for them."""
        batch = next((batch for batch in self._batches if not batch.first), None)
        if batch is None or not batch.lane.stepwise or not self._backend.computes_here():
            return False
        short = self._short(batch.lane)
        wait = batch.lane.longest() / self._backend.slots()
        return wait >= _LONG_WAIT and any(part.entry.kind[0] <= short for part in batch.parts)

    def _overtake(self) -> None:
        """Small batches of short requests besides, that need not wait for an instance."""
        slots = self._backend.slots()
        while self._busy >= slots > self._overtaking and self._haste.left:
            if all(lane.sizes()[0] > self._short(lane) for lane in self._waiting):
                break
            chosen = self._next(ahead=slots)
            if chosen is None or chosen[1] is not None or not self._start_short(chosen[0], first=True):
                break

    def _start_short(self, lane: Lane, *, first: bool = False) -> bool:
        """Starts a batch of short requests alone, if it is their turn and such requests are few enough."""
        if not self._haste.left:
            return False
        short = self._short(lane)
        if lane.sizes()[0] > short:
            return False
        turn = lane.turn(self._shares)
        if turn is None or turn[2] > short:
            return False
        return self._start(lane, lane.cost.full(lane.max_rows), first=first, largest=short) > 0

    def _short(self, lane: Lane) -> int:
        """Size class up to which requests are short: far shorter than the longest that is computed, or that
        waits in the same lane."""
        return max([lane.sizes()[1], *[batch.size for batch in self._batches]]) - _FAR_SHORTER

    def _next(self, ahead: int = 0) -> tuple[Lane, Urgency | None] | None:
        """The lane whose turn it is, and the urgency where that is because a deadline is near."""
        self._waiting = {lane: None for lane in self._waiting if lane.pending}
        lanes = [
            lane
            for lane in self._waiting
            if self._running[lane.graph] < self._backend.instances(lane.graph) + ahead
        ]
        if not lanes:
            return None
        under_way = self._backlog.takes(self._backlog.seconds)
        chosen = choose(lanes, self._shares, self._backend.slots(), monotonic(), under_way)
        if chosen is None:
            return None
        lane, horizon = chosen
        return lane, None if horizon is None else Urgency(horizon=horizon, slack=self._slack)

    def _slack(self, now: float) -> Slack:
        """What there will be to spare."""
        rate = self._backend.slots() / self._backlog.takes(1.0)
        return Slack(self._backlog.tickets, now, rate)

    def _spread(self, lane: Lane, free: int) -> int:
        """Over how many of the free instances a lane's rows go.

        What is free is shared among the lanes that wait, and a lane's rows over its share of it where that
        is quicker: on an idle engine they are computed side by side, rather than in one call on one core.
        """
        if lane.pending == 1:
            return 1
        share = max(1, free // len(self._waiting))
        share = min(share, self._backend.instances(lane.graph) - self._running[lane.graph])
        whole, split = lane.cost.seconds(lane.pending), lane.cost.seconds(-(-lane.pending // share))
        return share if whole == 0 or split < _WORTH_SPLITTING * whole else 1

    def _room(self, lane: Lane) -> int:
        """Rows of a batch: as many as are worth it, but no more than leave one for each instance and one that
        gathers or goes ahead. With larger ones instances would be out of work between two batches."""
        best, there = lane.cost.best(lane.max_rows), lane.pending + lane.computing
        if there <= best:
            return best
        return min(best, max(lane.cost.enough(lane.max_rows), there // (self._backend.slots() + 1)))

    def _start(
        self,
        lane: Lane,
        room: int,
        *,
        urgency: Urgency | None = None,
        largest: int = LARGEST_SIZE,
        first: bool = False,
    ) -> int:
        """Starts a batch of at most `room` rows, and returns how many they are: 0 where nobody waits."""
        parts = lane.take(room, self._shares, monotonic(), urgency=urgency, largest=largest)
        if not parts:
            return 0
        batch = Batch(
            lane=lane,
            parts=parts,
            rows=sum([part.rows for part in parts]),
            size=max([part.entry.kind[0] for part in parts]),
            first=first,
        )
        self._batches[batch] = None
        lane.running += 1
        lane.computing += batch.rows
        if first:
            self._overtaking += 1
        else:
            self.occupy(lane.graph, 1)
            # Shortly before it is done, half of a batch is enough to go ahead.
            seconds = lane.cost.seconds(batch.rows) * (1 - _SHORTLY)
            self._later(seconds, partial(self._run_ahead, _HALF))
        self._begin(batch)
        return batch.rows


def _cheap(lane: Lane) -> bool:
    """Whether a row costs less than a call does besides, and is not one of many steps."""
    return not lane.stepwise and 0 < lane.cost.row_seconds() < BESIDES_THE_CALL
