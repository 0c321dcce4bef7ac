"""What a batch of each size costs: measured, robust to a busy machine, and kept fresh while it runs."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from math import sqrt

_REMEMBERED = 25
_REMEMBERED_PACES = 5  # it has changed before the costs at pace 1 take the change for theirs
_EVIDENCE = 3
BESIDES_THE_CALL = 0.0003
"""Seconds of a core that a batch takes besides its call, however many its rows.

It is put together, a thread is woken, and its results are given out. On the CPU of the docs the event loop
spends 0.4 ms on a batch, some of them on the calls in it.
"""
BESIDES_A_PASS = 0.001
"""The same for graphs that a request calls once.

Their batches are the whole of what happens to a request, and the more of them there are the more often the
cores turn from one thing to another: in requests of 16 small pictures a batch of 16 rows takes 1.4 to 2.4 ms
of a core more than its part of one of 32 or 64, though the call itself gains nothing. Of the steps of a
diffusion less is counted, as everybody in a larger batch waits longer at each of them.
"""

_NEAR_BEST, _GOOD_ENOUGH = 0.97, 0.93
_NEIGHBOURS = 1.25  # the smaller, times this, is no less than the larger
_DOUBT = 0.1  # of what is expected of a size after one call
_SHORTEST_CALL, _LONGEST_CALL = 1e-9, 0.05
_LONGEST_IN_ROWS = 4
_LOOK_AGAIN = 64
_LEARN_EVERY = 16
_MEASURED_WITHIN = 1.01
_PASSING = 0.95


class CostTable:
    """Seconds of a call by its number of rows, for one graph on the machine it runs on.

    The cost of a size is the machine's present pace, the median of the last five calls of any size, times the
    size's own cost at pace 1, the median of its last 25. So a call that met somebody else's work does not
    count, a machine that has become slower is noticed soon, and sizes that were last seen when it was idle
    compare with those that are seen now that it is not. A pace that lasts becomes the sizes' own cost little
    by little: were all of it taken out of what is remembered, the noise of many calls would add up in it.
    """

    def __init__(self, besides: float = BESIDES_THE_CALL) -> None:
        """`besides` are the seconds that a batch takes besides its call."""
        self._besides = besides
        self._calls: dict[int, deque[float]] = {}
        self._medians: dict[int, float] = {}
        self._paces: deque[float] = deque(maxlen=_REMEMBERED_PACES)
        self._pace = 1.0
        self._sizes: list[int] = []
        self._best: int | None = None
        self._enough: int | None = None
        self._growing = True
        self._asked = 0
        self._observed = 0

    def heir(self) -> CostTable:
        """A table that expects the same of the sizes that are known well, and sooner believes what it sees.

        The pace goes over as it is: as a part of the costs its noise would add up from heir to heir.
        """
        table = CostTable(self._besides)
        for rows in self._sizes:
            if len(self._calls[rows]) >= _EVIDENCE:
                median = self._medians[rows]
                table._sizes.append(rows)
                table._calls[rows] = deque([median] * _EVIDENCE, maxlen=_REMEMBERED)
                table._medians[rows] = median
        table._paces, table._pace = self._paces.copy(), self._pace
        table._learn()
        return table

    def observe(self, rows: int, seconds: float) -> None:
        """One call of `rows` rows took that long."""
        seconds = max(seconds, _SHORTEST_CALL)
        calls = self._calls.get(rows)
        if calls is None:
            calls = self._calls[rows] = deque(maxlen=_REMEMBERED)
            insort(self._sizes, rows)
        elif len(calls) >= _EVIDENCE:
            self._paces.append(seconds / self._medians[rows])
            self._pace = sorted(self._paces)[len(self._paces) // 2]
        calls.append(seconds / self._pace**_PASSING)
        self._medians[rows] = sorted(calls)[len(calls) // 2]
        self._observed += 1
        if len(calls) <= _EVIDENCE or self._observed % _LEARN_EVERY == 0:
            self._learn()

    def seconds(self, rows: int) -> float:
        """Expected time of a call, linear between the sizes that were seen; 0 while nothing was."""
        median = self._medians.get(rows)
        if median is not None:
            return self._pace * median
        return self._pace * self._between(rows) if self._sizes else 0.0

    def _between(self, rows: int) -> float:
        """Time at pace 1 of a size that was not seen."""
        at = bisect_left(self._sizes, rows)
        if at == len(self._sizes):
            return self._medians[self._sizes[-1]] * rows / self._sizes[-1]
        above = self._sizes[at]
        below = self._sizes[at - 1] if at else 0
        low = self._medians[below] if at else self._medians[above]  # a smaller call saves nothing for sure
        return low + (self._medians[above] - low) * (rows - below) / (above - below)

    def row_seconds(self) -> float:
        """Share of one row in a batch of the best size."""
        size = self._best or (self._sizes[-1] if self._sizes else 0)
        return self._pace * self._medians[size] / size if size else 0.0

    def best(self, most: int) -> int:
        """The smallest size whose throughput is near the best one seen, at most `most` rows.

        Larger ones would make everybody wait longer for next to nothing, and none that takes longer than
        50 ms or four single rows is worth what it gains. While the largest size that was measured is the
        best, and now and then afterwards, twice as many rows are tried.
        """
        if self._best is None:
            return most
        self._asked += most > self._best
        larger = self._growing or self._asked % _LOOK_AGAIN == _LOOK_AGAIN - 1
        return min(most, self._best * 2 if larger else self._best)

    def enough(self, most: int) -> int:
        """The smallest size whose throughput is good enough where there are too few rows for larger ones."""
        return most if self._enough is None else min(most, self._enough)

    def within(self, seconds: float, most: int) -> int:
        """The most rows, up to `most`, whose call takes no longer; a single one at the least."""
        seconds *= _MEASURED_WITHIN
        if self.seconds(most) <= seconds:
            return most
        low, high = 1, most
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.seconds(middle) <= seconds else (low, middle)
        return low

    def full(self, most: int) -> int:
        """Rows that a batch gains nothing by waiting for more of."""
        return most if self._best is None else min(most, self._best)

    def duration(self, rows: int, slots: int = 1) -> float:
        """Time of so many rows by themselves, in as few batches as it takes, `slots` at a time."""
        if not rows:
            return 0.0
        full = self.full(rows)
        batches, rest = divmod(rows, full * slots)
        return batches * self.seconds(full) + (self.seconds(min(rest, full)) if rest else 0.0)

    def call_seconds(self) -> float:
        """Time of a call of the best size."""
        return self.seconds(self._best) if self._best else self.row_seconds()

    @property
    def settled(self) -> bool:
        """Whether a size is known beyond which nothing is gained."""
        return not self._growing

    def _learn(self) -> None:
        rates = self._rates()
        if rates:
            longest = max(_LONGEST_CALL / self._pace, _LONGEST_IN_ROWS * self._medians[min(rates)])
            short = [size for size in rates if self._medians[size] <= longest]
            fastest = max(rates[size] for size in short)
            self._best = next(size for size in short if rates[size] >= _NEAR_BEST * fastest)
            self._enough = next(size for size in short if rates[size] >= _GOOD_ENOUGH * fastest)
            self._growing = self._best == max(rates) and self.seconds(2 * self._best) <= self._pace * longest

    def _rates(self) -> dict[int, float]:
        """Rows a second at pace 1 of the sizes that are known well.

        A row takes about as long in batches of about the same size, so the mean of neighbours is taken, each
        with the weight of its calls, and the fewer the calls the less is expected. Otherwise the fastest of
        many sizes would be the luckiest one.
        """
        known = [size for size in self._sizes if len(self._calls[size]) >= _EVIDENCE]
        rates: dict[int, float] = {}
        low = high = calls = 0
        row_seconds = 0.0  # sum over those calls
        for size in known:
            while high < len(known) and known[high] <= _NEIGHBOURS * size:
                calls += len(self._calls[known[high]])
                row_seconds += len(self._calls[known[high]]) * self._medians[known[high]] / known[high]
                high += 1
            while _NEIGHBOURS * known[low] < size:
                calls -= len(self._calls[known[low]])
                row_seconds -= len(self._calls[known[low]]) * self._medians[known[low]] / known[low]
                low += 1
            seconds = size * row_seconds / calls + self._besides
            rates[size] = (1 - _DOUBT / sqrt(calls)) * size / seconds
        return rates
