"""The calls that one server has under way, and how they end where nobody waits for them any more."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

CANCELLED_SAFELY_SINCE: Mapping[str, tuple[int, int]] = {
    # Older ones race with themselves when a ModelInfer is cancelled while its answer is made: they use what
    # they have let go of, and die with everybody's calls. Mended in three parts, each in the first release
    # that has it:
    #   2.53 (24.12) https://github.com/triton-inference-server/server/issues/7368, by pull/7840
    #   2.57 (25.04) https://github.com/triton-inference-server/server/issues/8034, by pull/8078
    #   2.59 (25.06) https://github.com/triton-inference-server/server/pull/8220, for backends that send the
    #                answer and its end apart
    "triton": (2, 59),
    "atelier": (0, 0),  # a gateway can be the engine of another
}
"""Since which version servers of a name survive that a call is cancelled."""


def cancelled_safely(name: str, version: str) -> bool:
    """Whether a server survives it, by what its metadata say; a stranger is taken not to."""
    since = CANCELLED_SAFELY_SINCE.get(name)
    said = re.match(r"(\d+)\.(\d+)", version)
    return since is not None and said is not None and (int(said[1]), int(said[2])) >= since


class UnderWay:
    """Calls under way to one server.

    To cancel one of them on the wire can be the end of the server, unless it is known to be `cancellable`.
    So a call is left to end by itself else: by its answer, with its connection, or with this process.
    """

    def __init__(self, *, seconds: float) -> None:
        self.cancellable = False
        self._seconds = seconds
        self._given_up: asyncio.Future[None] | None = None
        self._left: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        """Calls that nobody waits for any more, and the server still has."""
        return len(self._left)

    async def run(self, call: Coroutine[Any, Any, T], *, to_its_end: bool = False) -> T:
        """What a call returns. Raises `TimeoutError` after so many seconds, or when the server is given up.

        Whoever cancels it waits until the call has ended: at once where the server can be told, and else when
        it has been computed, so that no more calls are there at a time than were meant to be. One that has
        to go `to_its_end` is not cancelled even then.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + self._seconds
        task = loop.create_task(call)
        try:
            await self._until(task, end)
        except asyncio.CancelledError:
            self._cancel(task, to_its_end)
            await self._until(task, end)
            raise
        finally:
            if not task.done():
                self._cancel(task, to_its_end)
                self._left.add(task)
            task.add_done_callback(self._ended)
        if not task.done():
            raise TimeoutError
        return task.result()

    def give_up(self) -> None:
        """Lets everybody go who waits: the server does not answer."""
        if self._given_up is not None:
            self._given_up.set_result(None)
            self._given_up = None

    async def close(self, seconds: float) -> None:
        """Waits so long for what is left, and lets go of it then: with the channel all calls end."""
        if self._left:
            await asyncio.wait(self._left, timeout=seconds)
        left = tuple(self._left)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _until(self, task: asyncio.Task[Any], end: float) -> None:
        """Until a call has ended, time is up, or the server is given up."""
        loop = asyncio.get_running_loop()
        if self._given_up is None:
            self._given_up = loop.create_future()
        ends = (task, self._given_up)
        await asyncio.wait(ends, timeout=max(0.0, end - loop.time()), return_when=asyncio.FIRST_COMPLETED)

    def _cancel(self, task: asyncio.Task[Any], to_its_end: bool) -> None:
        if self.cancellable and not to_its_end:
            task.cancel()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._left.discard(task)
        if not task.cancelled():
            task.exception()  # has been told to whoever waited, or nobody did
