"""`python -m benchmarks.unmetered serve ...`: the gateway with metrics that count nothing.

What the metrics cost is the difference to `atelier serve`.
"""

from __future__ import annotations

import sys
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

import atelier


def _nothing(*_: Any, **__: Any) -> None:
    pass


def _itself(metric: Any, *_: Any, **__: Any) -> Any:
    return metric


for kind, methods in ((Counter, ("inc",)), (Gauge, ("inc", "dec", "set")), (Histogram, ("observe",))):
    kind.labels = _itself
    for method in methods:
        setattr(kind, method, _nothing)

if __name__ == "__main__":
    sys.exit(atelier.main(sys.argv[1:]))
