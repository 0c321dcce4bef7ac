"""A stream of what a run does: bounded, so that a slow reader misses old progress and holds nobody up."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from serving.pb import image_generation_pb2 as pb

T = TypeVar("T")

_UPDATES_KEPT = 8


async def stream(
    start: Callable[[Callable[[T], None]], Coroutine[Any, Any, pb.GenerateImagesResponse]],
    show: Callable[[T], Awaitable[pb.GenerateEvent]],
) -> AsyncGenerator[pb.GenerateEvent, None]:
    """Events of a run, the result last. Closing it cancels the run.

    `start` begins the run with a function to be told of each update, which costs the run next to nothing.
    `show` makes an event of an update, when the reader comes for it: what it has not fetched gives way to
    newer, but the result does not.
    """
    updates: deque[T] = deque(maxlen=_UPDATES_KEPT)
    changed = asyncio.Event()

    def update(value: T) -> None:
        updates.append(value)
        changed.set()

    task = asyncio.create_task(start(update))
    task.add_done_callback(lambda _: changed.set())
    try:
        while True:
            while updates:
                yield await show(updates.popleft())
            if task.done():
                break
            changed.clear()
            await changed.wait()
        yield pb.GenerateEvent(result=await task)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        del task  # it holds its error, whose traceback holds this frame
