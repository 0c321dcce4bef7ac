"""The life of the process: signals, reloading, and the order in which it stops."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Sequence

from serving.process.watched import Watched

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0

Reload = Callable[[], Awaitable[None]]


class Life:
    """How far the end has come.

    The first SIGTERM or SIGINT begins it; a second one acts as it does by default, and ends the process at
    once. SIGHUP reads everything again.
    """

    def __init__(self) -> None:
        self.draining = asyncio.Event()
        """Readiness is off, and requests are still served."""
        self.stopping = asyncio.Event()
        """Nothing new is taken."""
        self.ended = asyncio.Event()
        """Nothing is under way any more."""
        self.reloading = asyncio.Event()
        """Somebody asked for everything to be read again."""

    def not_ready_reason(self) -> str | None:
        """Why the gateway is not ready, as far as its end is concerned."""
        return "the gateway is stopping" if self.draining.is_set() else None

    def heed_signals(self) -> None:
        """From now on signals are heard, in the running loop."""
        loop = asyncio.get_running_loop()
        stops = (signal.SIGTERM, signal.SIGINT)

        def drain() -> None:
            self.draining.set()
            for number in stops:
                loop.remove_signal_handler(number)

        for number in stops:
            loop.add_signal_handler(number, drain)
        loop.add_signal_handler(signal.SIGHUP, self.reloading.set)


async def keep_fresh(life: Life, watched: Sequence[Watched[object]], also: Sequence[Reload] = ()) -> None:
    """Reads files again when they change; on SIGHUP all of them, and whatever else can be read again."""
    while True:
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                await life.reloading.wait()
        except TimeoutError:
            asked = False
        else:
            life.reloading.clear()
            asked = True
            log.info("SIGHUP: reading everything again")
        for files in watched:
            try:
                await asyncio.to_thread(files.refresh, force=asked)
            except Exception:
                log.exception("files could not be read again; those from before stay in use")
        for reload in also if asked else ():
            try:
                await reload()
            except Exception:
                log.exception("reloading failed; what was there before stays in use")
