"""Who is next: fair between clients and between short and long requests, earliest deadline first in each.

Plain values and a clock that is handed in, so that it can be tested on a simulated one.

- Start-time fair queueing (Goyal, Vin and Cheng 1996) shares the machine's seconds between clients, and those
  of one client between its kinds of requests: by graph and by size class, where requests of a quarter of the
  size have three times the share. Whoever has had less of theirs goes first, so a short request is never
  behind a long one, and nobody is ever shut out. The share goes by the size itself: of requests that are
  alike some may be of one class and some of the next, and none has the better of it.
- Among requests of one client and kind the earliest deadline goes first. Where that is far away it is when
  the request would be done if all that are under way shared the machine equally, as reckoned when it came
  (Friedman and Henderson 2003). So of two that come together the quicker goes first, and that is the one of
  fewer steps where both compute as much; and none is passed by others without end.
- A short request need not take the time of a full batch at each of its steps: as long as that costs no more
  than a small share of the machine for all such requests, they have small batches for themselves, and those
  go before what waits.
- A call that would miss its deadline if all that waits went before it jumps the queue, and shares its batch
  with such calls alone: what a passenger without haste adds to it, the next in haste would miss. And with no
  more of them than there is time for, its own and that of whoever must be done before they must (`slack`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from heapq import heapify, heappop, heappush, heapreplace
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")

SMALLEST_SIZE, LARGEST_SIZE = -7, 7
"""Size classes."""

_FAVOUR = 3.0
_CLOCKS = 1024
_URGENT_LEAST = 256


Kind = tuple[int, str]
"""Size class of the whole request, see `size_class`, and the graph that is called."""


@lru_cache(maxsize=4096)
def size_class(seconds: float) -> int:
    """Requests that differ by less than about four times are of one size, by compute time."""
    return round(_log_size(seconds))


@lru_cache(maxsize=4096)
def price(seconds: float) -> float:
    """What a second counts for requests of so much compute time: at a quarter of the size a third."""
    return math.pow(_FAVOUR, _log_size(seconds))


def _log_size(seconds: float) -> float:
    return min(float(LARGEST_SIZE), max(float(SMALLEST_SIZE), math.log(max(seconds, 1e-6), 4)))


class _Clock:
    """Virtual time of some flows: the seconds each has been served, never behind who is served now."""

    def __init__(self) -> None:
        self.now = 0.0
        self.tags: dict[object, float] = {}

    def tag(self, flow: object) -> float:
        had = self.tags.get(flow, 0.0)
        return had if had > self.now else self.now

    def charge(self, flow: object, seconds: float) -> None:
        if len(self.tags) >= _CLOCKS:  # who is not ahead of the clock is remembered by it
            self.tags = {known: tag for known, tag in self.tags.items() if tag > self.now}
        self.tags[flow] = self.tag(flow) + seconds


Turn = tuple[float, float, int, float]
"""Order of claims: what the client has had, what its requests of that kind have had, size, due time."""


class Shares:
    """What everybody has had of the machine."""

    def __init__(self) -> None:
        self._clients = _Clock()
        self._kinds: dict[str, _Clock] = {}

    def of_client(self, client: str) -> float:
        """What a client has had; the least goes first."""
        return self._clients.tag(client)

    def of_kinds(self, client: str) -> Callable[[Kind], float]:
        """What a client's requests of each kind have had; the least goes first."""
        kinds = self._kinds.get(client)
        return kinds.tag if kinds else _nothing

    def serve(self, client: str, kind: Kind) -> None:
        """It is their turn: time goes on to it, and who was away does not get more for having been so."""
        self._clients.now = self._clients.tag(client)
        if len(self._kinds) >= _CLOCKS:
            self._kinds = {name: clock for name, clock in self._kinds.items() if name in self._clients.tags}
        kinds = self._kinds.setdefault(client, _Clock())
        kinds.now = kinds.tag(kind)

    def charge(self, client: str, kind: Kind, seconds: float, *, size: float, weight: float) -> None:
        """A request of theirs was given that much; with a greater weight it counts for less, and so it does,
        beside others of the client, the less compute time in all, its `size`, the request takes."""
        self._clients.charge(client, seconds / weight)
        self._kinds.setdefault(client, _Clock()).charge(kind, seconds * price(size))


class Haste:
    """What short requests may cost the others: a share of all compute time, for all of them or for none.

    A row takes longer in a small batch than in a full one. Spent on requests that are few and far shorter
    than those beside them this buys them much latency for little throughput; spent on half of the load it
    would not, and spent on some of many the slowest of them would be as slow as before. So it counts what all
    of them would cost, whether or not they are given it: where that is more than the share, nobody is.
    """

    def __init__(self, share: float = 0.03, most: float = 0.1) -> None:
        self._share = share
        self._most = most
        self._seconds = most

    @property
    def left(self) -> bool:
        """Whether what they would cost is within the share."""
        return self._seconds > 0

    def earn(self, seconds: float) -> None:
        """So much was computed."""
        self._seconds = min(self._most, self._seconds + self._share * seconds)

    def ask(self, seconds: float) -> None:
        """A call of theirs would cost so much more in a small batch than in a full one."""
        self._seconds = max(-self._most, self._seconds - seconds)


class Queue(Generic[T]):
    """The calls that wait for one graph.

    Those that are `gone` are forgotten when they are met. `latest_start` tells when a call, or what is left
    of it, must begin for its request to be done by its deadline: that may become later, never earlier.
    """

    def __init__(self, gone: Callable[[T], bool], latest_start: Callable[[T], float]) -> None:
        self._gone = gone
        self._latest_start = latest_start
        self._flows: dict[str, dict[Kind, list[tuple[float, int, T]]]] = {}
        self._urgent: list[tuple[float, int, T]] = []
        self._urgent_most = _URGENT_LEAST
        self._number = 0

    def put(self, item: T, *, client: str, kind: Kind, deadline: float) -> None:
        """Adds a call: whose and of what kind it is, for their shares, and by when its request should be
        done."""
        if len(self._urgent) >= self._urgent_most:  # who has plenty of time is met last, gone or not
            self._urgent = [entry for entry in self._urgent if not self._gone(entry[2])]
            heapify(self._urgent)
            self._urgent_most = max(_URGENT_LEAST, 2 * len(self._urgent))
        self._number += 1
        flow = self._flows.setdefault(client, {}).setdefault(kind, [])
        heappush(flow, (deadline, self._number, item))
        heappush(self._urgent, (self._latest_start(item), self._number, item))

    def sizes(self) -> tuple[int, int]:
        """The least and the greatest size class that may wait."""
        least, greatest = LARGEST_SIZE, SMALLEST_SIZE
        for flows in self._flows.values():
            for size, _ in flows:
                least, greatest = min(least, size), max(greatest, size)
        return least, greatest

    def turn(self, shares: Shares, largest: int = LARGEST_SIZE) -> tuple[Turn, T] | None:
        """Whose turn it is, if anybody waits whose request is of the size class `largest` or below."""
        best: tuple[Turn, T] | None = None
        emptied: list[tuple[str, Kind]] = []
        for client, flows in self._flows.items():
            had = shares.of_client(client)
            if best is not None and had > best[0][0]:
                continue
            of_kind = shares.of_kinds(client)
            for kind, flow in flows.items():
                if kind[0] > largest:
                    continue
                while flow and self._gone(flow[0][2]):
                    heappop(flow)
                if not flow:
                    emptied.append((client, kind))
                    continue
                turn = (had, of_kind(kind), kind[0], flow[0][0])
                if best is None or turn < best[0]:
                    best = (turn, flow[0][2])
        for client, kind in emptied:
            del self._flows[client][kind]
            if not self._flows[client]:
                del self._flows[client]
        return best

    def latest_start(self, since: float) -> tuple[float, T] | None:
        """The call that must begin first, and when; those that had to begin before `since` are given up."""
        urgent = self._urgent
        while urgent:
            noted, number, item = urgent[0]
            if self._gone(item):
                heappop(urgent)
            elif (latest := self._latest_start(item)) > noted:  # a part of it has been computed meanwhile
                heapreplace(urgent, (latest, number, item))
            elif noted < since:
                heappop(urgent)
            else:
                return noted, item
        return None

    def clear(self) -> None:
        """Forgets everything."""
        self._flows.clear()
        self._urgent.clear()


class Waiting(Protocol):
    """Calls that wait for one graph."""

    def turn(self, shares: Shares) -> Turn | None:
        """The turn of whoever is next here."""

    def latest_start(self, now: float) -> float:
        """When the call must begin that has the least time left."""

    def seconds(self) -> float:
        """Compute time of all that waits."""

    def longest(self) -> float:
        """Time of a full batch."""


W = TypeVar("W", bound=Waiting)


def choose(
    lanes: Sequence[W], shares: Shares, slots: int, now: float, under_way: float
) -> tuple[W, float | None] | None:
    """The lane that a free instance goes to and, where that is because a deadline is near, the horizon.

    `under_way` are the seconds of compute that the requests which have come are still going to take. A
    deadline is near when its call could no longer begin in time after all of that, and a batch more: whatever
    must begin before that horizon goes before whatever need not.
    """
    if not lanes:
        return None
    starts = [lane.latest_start(now) for lane in lanes]
    tightest = min(starts)
    backlog = max(under_way, sum([lane.seconds() for lane in lanes])) / slots
    horizon = now + backlog + max([lane.longest() for lane in lanes])
    if tightest <= horizon:
        return lanes[starts.index(tightest)], horizon
    if len(lanes) == 1:
        return lanes[0], None
    turns = [(turn, place) for place, lane in enumerate(lanes) if (turn := lane.turn(shares)) is not None]
    return (lanes[min(turns)[1]], None) if turns else None


def _nothing(kind: Kind) -> float:
    """What requests have had of which none has been served yet."""
    return 0.0
