"""Only the server that is measured has the machine."""

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass

from benchmarks.contenders import by_itself
from benchmarks.processes import cpu_seconds, running

# A server whose worker is busy though nobody asks it anything.
BUSY = """
import subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", "while True: pass"])
print(worker.pid, flush=True)
worker.wait()
"""


@dataclass
class Busy:
    process_id: int | None
    worker: int

    async def send(self, _: object) -> str:
        return "ok"


async def open_busy(stack: AsyncExitStack) -> Busy:
    process = await stack.enter_async_context(running([sys.executable, "-c", BUSY], ready=at_once))
    while True:
        await asyncio.sleep(0.05)
        children = await asyncio.to_thread(children_of, process.pid)
        if children:
            return Busy(process.pid, children[0])


def children_of(process_id: int) -> list[int]:
    with open(f"/proc/{process_id}/task/{process_id}/children", encoding="ascii") as file:
        return [int(child) for child in file.read().split()]


async def at_once() -> bool:
    return True


async def busy_for(workers: list[int]) -> list[bool]:
    """Which of them compute within a while."""
    before = [cpu_seconds(worker) for worker in workers]
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        await asyncio.sleep(0.05)
    return [cpu_seconds(worker) > was for worker, was in zip(workers, before, strict=True)]


async def test_the_others_are_stopped_while_one_is_measured_and_go_on_after_it() -> None:
    async with AsyncExitStack() as stack:
        servers = [await open_busy(stack) for _ in range(2)]
        quiet = Busy(None, 0)
        workers = [server.worker for server in servers]

        async def measure() -> list[bool]:
            return await busy_for(workers)

        everyone = [*servers, quiet]
        assert await by_itself(servers[0], everyone, measure) == [True, False]
        assert await by_itself(servers[1], everyone, measure) == [False, True]
        assert await by_itself(None, everyone, measure) == [False, False]
        assert await measure() == [True, True]


async def test_a_server_that_has_ended_is_no_reason_not_to_measure_another() -> None:
    async def measure() -> str:
        return "measured"

    async with AsyncExitStack() as stack:
        gone = await open_busy(stack)
    assert await by_itself(None, [gone], measure) == "measured"
