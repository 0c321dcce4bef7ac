"""Threads that call a session: in the order in which calls come, but for those that go before all others.

An executor's queue has one order. Here a call that is to go first overtakes whatever no thread has begun.
And threads may be made to stand back, so that on a busy machine whoever computes little, as the event loop
does, need not wait for the end of their time slices.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from time import perf_counter
from typing import Any, TypeVar

from serving.backends.waking import Waker

log = logging.getLogger(__name__)

Result = TypeVar("Result")

_LONG_CALL = 0.005  # seconds: to move the event loop is little beside it


class Workers:
    """So many threads, started with the first call.

    With a `niceness` above 0 other threads of the process go before them where cores are short. It holds
    among the threads that the kernel shares cores between, as those of a container, and on Linux alone.

    Where they `fill_cores`, the event loop is woken on the core of a thread that has nothing more to do.
    """

    def __init__(self, threads: int, name: str, *, niceness: int = 0, fill_cores: bool = False) -> None:
        self._count = threads
        self._name = name
        self._niceness = niceness
        self._fill_cores = fill_cores
        self._waker: Waker | None = None
        self._threads: list[Thread] = []
        self._calls: deque[Callable[[], None]] = deque()
        self._signals: SimpleQueue[bool] = SimpleQueue()  # one for each call; False ends a thread
        self._closed = False

    async def call(self, function: Callable[..., Result], *arguments: Any, first: bool = False) -> Result:
        """What the function returns, computed in a thread; `first` before all that has not begun.

        Cancelled, it ends when the call has: no thread can be stopped, and what it reads stays as it is.
        One that has not begun when it is cancelled never does. RuntimeError after `close`.
        """
        if self._closed:
            raise RuntimeError("no calls are taken any more")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Result] = loop.create_future()
        ended: asyncio.Future[None] = loop.create_future()
        waker = self._wakes(loop)

        def compute() -> None:
            if answer.cancelled():
                loop.call_soon_threadsafe(finish, None, None)
                return
            began = perf_counter()
            try:
                result = function(*arguments)
            except Exception as error:
                loop.call_soon_threadsafe(finish, None, error)
                return
            if waker is None or self._calls or perf_counter() - began < _LONG_CALL:
                loop.call_soon_threadsafe(finish, result, None)
            else:
                waker.call_soon(finish, result, None)

        def finish(result: Any, error: Exception | None) -> None:
            ended.set_result(None)
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)

        if first:
            self._calls.appendleft(compute)
        else:
            self._calls.append(compute)
        self._signal(True)
        try:
            return await answer
        except asyncio.CancelledError:
            await asyncio.wait([ended])
            raise

    def close(self) -> None:
        """Waits for the calls that are there, and ends the threads."""
        self._closed = True
        for _ in self._threads:
            self._signals.put(False)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _wakes(self, loop: asyncio.AbstractEventLoop) -> Waker | None:
        if self._fill_cores and (self._waker is None or self._waker.loop is not loop):
            self._waker = Waker(loop)
        return self._waker

    def _signal(self, more: bool) -> None:
        while len(self._threads) < self._count:
            number = len(self._threads)
            thread = Thread(target=self._work, name=f"{self._name}_{number}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._signals.put(more)

    def _work(self) -> None:
        if self._niceness and sys.platform == "linux":  # elsewhere a thread has no niceness of its own
            with suppress(OSError):  # where a sandbox does not allow it
                os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + self._niceness)
        while self._signals.get():
            call = self._calls.popleft()
            try:
                call()
            except RuntimeError:  # the loop that waited is closed
                log.debug("nobody waits for a call any more")
            del call  # what it holds is not kept until the next one
