"""The event loop is woken on the core that falls idle."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable

import pytest
import uvloop

from serving.backends import workers as workers_module
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


class Watched:
    """A loop, and on what cores its thread may be when it is woken."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.thread = threading.get_native_id()
        self.cores: list[set[int]] = []

    def call_soon_threadsafe(self, callback: Callable[..., object], *arguments: object) -> None:
        self.cores.append(os.sched_getaffinity(self.thread))
        self.loop.call_soon_threadsafe(callback, *arguments)


def test_the_loop_wakes_on_the_core_of_whoever_wakes_it_and_may_leave_it_then() -> None:
    cores = os.sched_getaffinity(0)

    def wake_from(core: int, waker: Waker, woken: asyncio.Event) -> None:
        os.sched_setaffinity(0, {core})
        waker.call_soon(woken.set)

    async def wake() -> list[set[int]]:
        waker = Waker(asyncio.get_running_loop())
        watched = Watched(waker.loop)
        waker.loop = watched  # type: ignore[assignment] # all that it is asked for
        for core in sorted(cores):
            woken = asyncio.Event()
            thread = threading.Thread(target=wake_from, args=(core, waker, woken))
            thread.start()
            await woken.wait()
            await asyncio.to_thread(thread.join)
            assert os.sched_getaffinity(0) == cores
        return watched.cores

    assert uvloop.run(asyncio.wait_for(wake(), 10)) == [{core} for core in sorted(cores)]


@pytest.mark.parametrize("long", [True, False])
def test_calls_of_some_length_wake_the_loop_where_they_end(
    monkeypatch: pytest.MonkeyPatch, placed: list[tuple[int, set[int]]], long: bool
) -> None:
    async def call() -> None:
        workers = Workers(1, "test", fill_cores=True)
        await workers.call(time.sleep, 0.01)
        await asyncio.to_thread(workers.close)

    monkeypatch.setattr(workers_module, "_LONG_CALL", 0.01 if long else 60.0)
    cores = os.sched_getaffinity(0)
    uvloop.run(call())
    if not long:
        assert placed == []
        return
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


def test_a_thread_that_has_begun_wakes_the_loop_though_another_finds_it_forbidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, given_up, cores = threading.Event(), threading.Event(), os.sched_getaffinity(0)

    def found(_: int) -> set[int]:
        if begun.is_set():
            raise PermissionError(1, "Operation not permitted")
        begun.set()
        assert given_up.wait(10)
        return cores

    async def wake() -> None:
        waker, woken = Waker(asyncio.get_running_loop()), [asyncio.Event(), asyncio.Event()]
        first = asyncio.create_task(asyncio.to_thread(waker.call_soon, woken[0].set))
        await asyncio.to_thread(begun.wait, 10)
        await asyncio.to_thread(waker.call_soon, woken[1].set)
        given_up.set()
        await first
        for each in woken:
            await asyncio.wait_for(each.wait(), 10)

    monkeypatch.setattr(os, "sched_getaffinity", found)
    uvloop.run(wake())


def test_a_loop_that_is_closed_is_said_to_be() -> None:
    wakers = []

    async def make() -> None:
        wakers.append(Waker(asyncio.get_running_loop()))

    thread = threading.Thread(target=lambda: uvloop.run(make()))
    thread.start()
    thread.join()
    with pytest.raises(RuntimeError):
        wakers[0].call_soon(print)
