"""When a call that was sent ahead really began: instances of a graph take its calls one after the other."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic


@dataclass(kw_only=True, eq=False)
class Turn:
    """One call."""

    began: float | None = None
    """When an instance took it, in seconds of `time.monotonic`; None while it waits for one."""

    def seconds(self) -> float:
        """Time since then."""
        return 0.0 if self.began is None else monotonic() - self.began


class Turns:
    """The calls that one server has, by graph."""

    def __init__(self) -> None:
        self._computing: Counter[str] = Counter()
        self._waiting: defaultdict[str, deque[Turn]] = defaultdict(deque)

    @contextmanager
    def turn(self, graph: str, instances: int) -> Iterator[Turn]:
        """A call of a graph that has so many instances, from when it is sent until it has ended."""
        turn = Turn()
        if self._computing[graph] < instances:
            self._computing[graph] += 1
            turn.began = monotonic()
        else:
            self._waiting[graph].append(turn)
        try:
            yield turn
        finally:
            waiting = self._waiting[graph]
            if turn.began is None:
                waiting.remove(turn)
            elif waiting:
                waiting.popleft().began = monotonic()
            else:
                self._computing[graph] -= 1
