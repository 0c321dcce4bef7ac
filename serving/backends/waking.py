"""Waking the event loop on the core that falls idle.

A thread that has computed wakes the event loop, and Linux puts that where it ran last: where every core
computes, mostly beside the thread of another call, with which it then takes turns, while the core that has
just become free is idle until the loop has given it something to do.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uvloop


class Waker:
    """Wakes an event loop from threads that then have nothing to do. Made in the thread of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._thread = threading.get_native_id()
        # A thread that the loop starts while it is held on one core would stay there, so it must not run:
        # uvloop wakes it without letting go of the GIL, and before it gets that it has its cores again.
        self._core = _core() if isinstance(loop, uvloop.Loop) else None

    def call_soon(self, callback: Callable[..., object], *arguments: Any) -> None:
        """As `call_soon_threadsafe`, on this thread's core where the system can do that."""
        core = self._core  # another thread may find out meanwhile that it is not allowed
        if core is not None:
            try:
                cores = os.sched_getaffinity(self._thread)
                os.sched_setaffinity(self._thread, {core()})
            except OSError:  # a sandbox does not allow it
                core = self._core = None
        if core is None:
            self.loop.call_soon_threadsafe(callback, *arguments)
            return
        try:
            self.loop.call_soon_threadsafe(callback, *arguments)
        finally:
            with suppress(OSError):  # where the loop has ended, and its thread
                os.sched_setaffinity(self._thread, cores)


def _core() -> Callable[[], int] | None:
    """What tells the core of the current thread without letting go of the GIL; None where nothing does."""
    if sys.platform != "linux":
        return None
    try:
        return ctypes.PyDLL(None).sched_getcpu
    except AttributeError:
        return None
