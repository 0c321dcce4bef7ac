"""Load on a server: a closed loop of clients, or arrivals of a Poisson process."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from time import perf_counter

from benchmarks.mixes import Ask, Mix

Send = Callable[[Ask], Awaitable[str]]
"""Sends a request and waits for its end: "ok", or in a word why not ("refused", "late", "failed")."""

_PATIENCE = 180.0
_AFTER_FAILURE = (
    0.01  # seconds from one request to the next: whoever is refused at once does not ask on and on
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What became of a request."""

    ask: Ask
    """The request."""
    start: float
    """When it was sent, in seconds of `perf_counter`."""
    end: float
    """When its answer was there."""
    outcome: str
    """"ok", or why not."""

    @property
    def seconds(self) -> float:
        """From sending to answer."""
        return self.end - self.start


@dataclass(frozen=True, kw_only=True)
class Load:
    """Answers to everything that was sent, and the window in which it counts."""

    answers: list[Answer]
    """In the order of their end."""
    begin: float
    """Begin of the window, after the warm-up."""
    end: float
    """End of the window."""

    def credit(self, of: Callable[[Ask], float]) -> float:
        """What was done per second of the window: rows or images of the requests that succeeded.

        A request counts with the share of its time that lies in the window, so that what hangs over its
        edges is neither lost nor counted twice.
        """
        total = 0.0
        for answer in self.answers:
            inside = min(answer.end, self.end) - max(answer.start, self.begin)
            if answer.outcome == "ok" and inside > 0:
                total += of(answer.ask) * inside / answer.seconds
        return total / (self.end - self.begin)

    def latencies(self, which: Callable[[Ask], bool] = lambda ask: True) -> list[float]:
        """Seconds of the successful requests that were sent within the window."""
        return [a.seconds for a in self.sent() if a.outcome == "ok" and which(a.ask)]

    def sent(self) -> list[Answer]:
        """Answers to what was sent within the window."""
        return [answer for answer in self.answers if self.begin <= answer.start < self.end]


async def closed_loop(send: Send, mix: Mix, *, clients: int, warm_up: float, seconds: float) -> Load:
    """So many clients that each send the next request of the mix when the last one is answered.

    The load goes on until whatever was under way at the end of the window is answered, so that the end of
    the window is like its middle. Raises `RuntimeError` where not a single request succeeded.
    """
    answers: list[Answer] = []
    under_way: dict[int, asyncio.Future[None]] = {}
    numbers = count()
    stop = False

    async def client() -> None:
        while not stop:
            number = next(numbers)
            done = under_way[number] = asyncio.get_running_loop().create_future()
            answer = await _sent(send, mix(number))
            answers.append(answer)
            del under_way[number]
            done.set_result(None)
            if answer.outcome != "ok":
                await asyncio.sleep(max(0.0, _AFTER_FAILURE - answer.seconds))

    began = perf_counter()
    async with asyncio.timeout(_PATIENCE + warm_up + seconds), asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
        await asyncio.sleep(warm_up + seconds)
        await asyncio.gather(*under_way.values())
        stop = True
    outcomes = Counter(answer.outcome for answer in answers)
    if not outcomes["ok"]:
        raise RuntimeError(f"none of {len(answers)} requests succeeded: {dict(outcomes)}")
    return Load(answers=answers, begin=began + warm_up, end=began + warm_up + seconds)


async def poisson(send: Send, mix: Mix, *, rate: float, warm_up: float, seconds: float) -> Load:
    """Requests of the mix at random times, `rate` a second, whether or not earlier ones are answered."""
    answers: list[Answer] = []
    gaps = random.Random(1)

    async def one(number: int) -> None:
        answers.append(await _sent(send, mix(number)))

    began = perf_counter()
    due = began
    async with asyncio.timeout(_PATIENCE + warm_up + seconds), asyncio.TaskGroup() as group:
        for number in count():
            due += gaps.expovariate(rate)
            if due > began + warm_up + seconds:
                break
            await asyncio.sleep(max(0.0, due - perf_counter()))
            group.create_task(one(number))
    return Load(answers=answers, begin=began + warm_up, end=began + warm_up + seconds)


async def _sent(send: Send, ask: Ask) -> Answer:
    start = perf_counter()
    outcome = await send(ask)
    return Answer(ask=ask, start=start, end=perf_counter(), outcome=outcome)
