"""What a machine whose instances are all busy really gets done."""

from __future__ import annotations

from math import exp

_MEMORY = 2.0  # seconds
_EXPECTED, _EXPECTED_SECONDS = 0.9, 0.5
_LEAST = 0.1


class Throughput:
    """Compute seconds that are got done in a second of each instance, while there is always more to do.

    Less than 1: on a CPU whatever else there is to do (requests are read and refused, batches put together,
    pictures encoded) takes its time from the same cores, and under overload ever more of it.
    """

    def __init__(self) -> None:
        self._done = _EXPECTED * _EXPECTED_SECONDS
        self._time = _EXPECTED_SECONDS
        self._since: float | None = None

    @property
    def share(self) -> float:
        """The present one, over the last seconds of load."""
        return max(_LEAST, min(1.0, self._done / self._time))

    def ended(self, seconds: float, instances: int, now: float, *, more: bool) -> None:
        """A batch of so many compute seconds has ended; `more` says that all were busy and others wait."""
        if self._since is not None and now > self._since:
            passed = now - self._since
            kept = exp(-passed / _MEMORY)
            self._done = kept * self._done + seconds / instances
            self._time = kept * self._time + passed
        self._since = now if more else None
