"""`python -m benchmarks.counting serve ...`: the gateway, counting as often as it is told by `count`.

A process is so compared with itself: two that are alike differ by more than the metrics cost. And what
counting everything twenty times over costs can be measured where once is lost in the noise of a machine.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from prometheus_client import Gauge

import atelier
from serving.observing.metrics import Metrics
from serving.observing.tallies import Distribution, Tally

_COUNTING = {
    Metrics: ("answered", "encoded"),
    Tally: ("inc", "dec", "set"),
    Distribution: ("observe",),
    Gauge: ("set",),
}
_FUNCTIONS = [(kind, name, getattr(kind, name)) for kind, names in _COUNTING.items() for name in names]
_MOST = 20


def count(process_id: int, times: int) -> None:
    """Has a gateway count everything that often from now on: 0 to 20 times."""
    os.kill(process_id, signal.SIGRTMIN + times)


def _heed(number: int, _: object) -> None:
    for kind, name, function in _FUNCTIONS:
        setattr(kind, name, _repeated(function, number - signal.SIGRTMIN))


def _repeated(function: Callable[..., None], times: int) -> Callable[..., None]:
    if times == 1:
        return function

    def repeated(*given: Any, **named: Any) -> None:
        global _inside
        if _inside:  # a part of what is being repeated
            function(*given, **named)
            return
        _inside = True
        for _ in range(times):
            function(*given, **named)
        _inside = False

    return repeated if times else _nothing


def _nothing(*_: Any, **__: Any) -> None:
    pass


_inside = False

if __name__ == "__main__":
    for times in range(_MOST + 1):
        signal.signal(signal.SIGRTMIN + times, _heed)
    sys.exit(atelier.main(sys.argv[1:]))
