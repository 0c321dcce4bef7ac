"""Threads that call."""

import asyncio
import os
import sys
import threading

import pytest

from serving.backends.workers import Workers


@pytest.fixture
def worker():
    workers = Workers(1, "test")
    yield workers
    workers.close()


async def test_calls_are_answered_in_their_order_but_for_those_that_go_first(worker: Workers) -> None:
    gate, done = threading.Event(), []
    busy = asyncio.create_task(worker.call(gate.wait))
    await asyncio.sleep(0)
    calls = [asyncio.create_task(worker.call(done.append, name)) for name in "ab"]
    await asyncio.sleep(0)
    calls.append(asyncio.create_task(worker.call(done.append, "first", first=True)))
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(busy, *calls)
    assert done == ["first", "a", "b"]


async def test_an_error_is_raised_where_the_call_was_made(worker: Workers) -> None:
    with pytest.raises(ZeroDivisionError):
        await worker.call(lambda: 1 / 0)
    assert await worker.call(lambda: 1) == 1, "the thread goes on"


async def test_a_cancelled_call_ends_when_the_thread_has_let_go_of_its_inputs(worker: Workers) -> None:
    gate, begun = threading.Event(), threading.Event()

    def compute() -> None:
        begun.set()
        gate.wait()

    call = asyncio.create_task(worker.call(compute))
    await asyncio.to_thread(begun.wait)
    call.cancel()
    await asyncio.sleep(0.02)
    assert not call.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_call_that_is_cancelled_before_it_begins_never_does(worker: Workers) -> None:
    gate, done = threading.Event(), []
    busy = asyncio.create_task(worker.call(gate.wait))
    await asyncio.sleep(0)
    call = asyncio.create_task(worker.call(done.append, "computed"))
    await asyncio.sleep(0)
    call.cancel()
    gate.set()
    await busy
    with pytest.raises(asyncio.CancelledError):
        await call
    assert done == []


async def test_after_the_end_no_call_is_taken() -> None:
    workers = Workers(2, "test")
    assert await workers.call(lambda: 1) == 1
    await asyncio.to_thread(workers.close)
    with pytest.raises(RuntimeError):
        await workers.call(lambda: 2)


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has no niceness of its own elsewhere")
async def test_threads_stand_back_for_the_others_of_the_process() -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    polite, plain = Workers(1, "polite", niceness=3), Workers(1, "plain")
    try:
        assert await polite.call(os.getpriority, os.PRIO_PROCESS, 0) == min(19, own + 3)
        assert await plain.call(os.getpriority, os.PRIO_PROCESS, 0) == own
        assert os.getpriority(os.PRIO_PROCESS, 0) == own
    finally:
        polite.close()
        plain.close()


def test_where_a_sandbox_forbids_threads_to_stand_back_they_compute_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, answers = [], []

    def forbidden(*arguments: int) -> None:
        asked.append(arguments)
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "setpriority", forbidden, raising=False)
    workers = Workers(1, "polite", niceness=3)
    # In a thread, as a call that no worker takes would never end, cancelled or not.
    caller = threading.Thread(
        target=lambda: answers.append(asyncio.run(workers.call(sum, (1, 2)))), daemon=True
    )
    caller.start()
    caller.join(10)
    workers.close()
    assert asked, "they were asked to"
    assert answers == [3]
