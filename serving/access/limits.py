"""What one key may ask for in a time: buckets of tokens that fill at a steady rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

from serving.errors import Code, ServingError

_UNANSWERED = frozenset(
    {
        Code.INVALID_ARGUMENT,
        Code.NOT_FOUND,
        Code.FAILED_PRECONDITION,
        Code.PERMISSION_DENIED,
        Code.UNIMPLEMENTED,
        Code.RESOURCE_EXHAUSTED,
        Code.UNAVAILABLE,
        Code.INTERNAL,
    }
)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one key may ask for."""

    requests_per_second: float = math.inf
    """Requests a second, in the long run."""
    burst: int = 0
    """Requests that may come at once; 0 for those of one second."""
    images_per_minute: float = math.inf
    """Images a minute, as many of them at once."""
    concurrency: int = 0
    """Requests that may be under way at a time; 0 for any number."""

    @property
    def requests_at_once(self) -> float:
        """The burst, with its default."""
        return self.burst or max(1.0, self.requests_per_second)


class Bucket:
    """Tokens that fill up at a steady rate, to a most."""

    def __init__(self, rate: float, most: float, now: float) -> None:
        self.rate = rate
        self.most = most
        self._level = most
        self._at = now

    def take(self, tokens: float, now: float) -> float:
        """0 where they were there and are taken, else the seconds until they are."""
        if math.isinf(self.rate):
            return 0.0
        self._level = min(self.most, self._level + (now - self._at) * self.rate)
        self._at = now
        if tokens <= self._level:
            self._level -= tokens
            return 0.0
        return (tokens - self._level) / self.rate

    def give_back(self, tokens: float) -> None:
        """What was taken for nothing."""
        self._level = min(self.most, self._level + tokens)


class Account:
    """What the owner of a key has had, held against their limits. Outlives a change of the limits."""

    def __init__(self, name: str, limits: Limits, clock: Callable[[], float] = monotonic) -> None:
        self._name = name
        self._clock = clock
        self._under_way = 0
        self.adopt(limits)

    def adopt(self, limits: Limits) -> None:
        """New limits, from now on; buckets whose limits have not changed stay as full as they are."""
        now, old = self._clock(), getattr(self, "limits", None)
        self.limits = limits
        if old is None or old.images_per_minute != limits.images_per_minute:
            self._images = Bucket(limits.images_per_minute / 60, limits.images_per_minute, now)
        if old is None or (old.requests_per_second, old.burst) != (limits.requests_per_second, limits.burst):
            self._requests = Bucket(limits.requests_per_second, limits.requests_at_once, now)

    def request(self) -> None:
        """Counts a request; RESOURCE_EXHAUSTED, with the seconds to wait, where there were too many."""
        wait = self._requests.take(1, self._clock())
        if wait:
            raise self._refusal(
                "key_requests", f"{self.limits.requests_per_second:g} requests a second", wait
            )

    @contextmanager
    def work(self, images: int) -> Iterator[None]:
        """Counts a request that is under way and its images; what is not answered gives them back.

        Cancelled and late requests have cost what they cost, and do not.
        """
        most = self.limits.images_per_minute
        if images > most:
            reason = f"{most:g} images a minute, and this request asks for {images}"
            raise self._refusal("key_images", reason, None)
        if self.limits.concurrency and self._under_way >= self.limits.concurrency:
            raise self._refusal("key_concurrency", f"{self.limits.concurrency} requests at a time", 1.0)
        wait = self._images.take(images, self._clock())
        if wait:
            raise self._refusal("key_images", f"{most:g} images a minute", wait)
        self._under_way += 1
        try:
            yield
        except ServingError as error:
            if error.code in _UNANSWERED:
                self._images.give_back(images)
            raise
        finally:
            self._under_way -= 1

    def _refusal(self, turned_away: str, limit: str, retry_after: float | None) -> ServingError:
        remedy = "ask again later" if retry_after is not None else "ask for fewer at a time"
        return ServingError(
            Code.RESOURCE_EXHAUSTED,
            f"key {self._name!r} may have {limit}: {remedy}, or have its limit raised",
            retry_after=retry_after,
            turned_away=turned_away,
        )
