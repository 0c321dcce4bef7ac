"""The event loop is woken on the core that falls idle."""

import asyncio
import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable

import pytest
import uvloop

from serving.backends.waking import Waker
from serving.backends.workers import Workers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads cannot be placed elsewhere")


@pytest.fixture
def placed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, set[int]]]:
    """Threads that were placed on cores, and the cores, in order."""
    place, seen = os.sched_setaffinity, []

    def noted(thread: int, cores: set[int]) -> None:
        seen.append((thread, set(cores)))
        place(thread, cores)

    monkeypatch.setattr(os, "sched_setaffinity", noted)
    return seen


def rung(waker: Waker, core: int, woken: Callable[[int], None]) -> None:
    """Wakes the loop from a thread on this core, which is idle then."""
    os.sched_setaffinity(0, {core})
    waker.call_soon(lambda: woken(ctypes.CDLL(None).sched_getcpu()))
    time.sleep(0.02)


def test_the_loop_wakes_on_the_core_of_whoever_wakes_it_and_may_leave_it_then() -> None:
    cores = sorted(os.sched_getaffinity(0))

    async def wake() -> tuple[list[int], list[int], set[int]]:
        waker, asked, found = Waker(asyncio.get_running_loop()), [], []
        for turn in range(20):
            asked.append(cores[turn % len(cores)])
            thread = threading.Thread(target=rung, args=(waker, asked[-1], found.append))
            thread.start()
            await asyncio.sleep(0.05)
            await asyncio.to_thread(thread.join)
        return asked, found, os.sched_getaffinity(0)

    asked, found, left = uvloop.run(wake())
    assert left == set(cores)
    there = sum(core == wanted for core, wanted in zip(found, asked, strict=True))
    assert there >= 15, "it may be moved once it is awake, but seldom is"


def test_calls_of_some_length_wake_the_loop_where_they_end(placed: list[tuple[int, set[int]]]) -> None:
    async def call(seconds: float) -> None:
        workers = Workers(1, "test", fill_cores=True)
        await workers.call(time.sleep, seconds)
        await asyncio.to_thread(workers.close)

    cores = os.sched_getaffinity(0)
    uvloop.run(call(0.0))
    assert placed == [], "a short one has better things to do"
    uvloop.run(call(0.02))
    (thread, one), (again, back) = placed
    assert thread == again == threading.get_native_id()
    assert len(one) == 1
    assert one <= cores == back


async def test_a_loop_that_might_run_meanwhile_is_woken_as_ever(placed: list[tuple[int, set[int]]]) -> None:
    woken = asyncio.Event()
    await asyncio.to_thread(Waker(asyncio.get_running_loop()).call_soon, woken.set)
    await asyncio.wait_for(woken.wait(), 10)
    assert placed == []


def test_where_a_sandbox_forbids_it_the_loop_is_woken_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def forbidden(*arguments: object) -> None:
        asked.append(arguments)
        raise PermissionError(1, "Operation not permitted")

    async def wake() -> None:
        waker = Waker(asyncio.get_running_loop())
        for _ in range(3):
            woken = asyncio.Event()
            await asyncio.to_thread(waker.call_soon, woken.set)
            await asyncio.wait_for(woken.wait(), 10)

    monkeypatch.setattr(os, "sched_setaffinity", forbidden)
    uvloop.run(wake())
    assert len(asked) == 1, "it is not tried again"


def test_a_loop_that_is_closed_is_said_to_be(placed: list[tuple[int, set[int]]]) -> None:
    wakers = []

    async def make() -> None:
        wakers.append(Waker(asyncio.get_running_loop()))

    thread = threading.Thread(target=lambda: uvloop.run(make()))
    thread.start()
    thread.join()
    with pytest.raises(RuntimeError):
        wakers[0].call_soon(print)
